"""Where wish and world meet: the store of objects, the observer of backends, and the passes that connect them."""
