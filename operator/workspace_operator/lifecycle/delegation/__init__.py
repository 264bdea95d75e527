"""What should happen to a delegation: who may, whose turn it is, what comes next. Pure, as the room around it."""
