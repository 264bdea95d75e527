-- Any new token asks for one restart.
local os = require("os")
obj.spec.restartToken = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
