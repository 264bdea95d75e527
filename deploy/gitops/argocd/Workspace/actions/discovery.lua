-- What may be asked of a Workspace now. One that paused because it was idle still wishes to run: restart wakes it.
local wish = obj.spec.desiredState or "Running"
local going = obj.metadata.deletionTimestamp ~= nil

return {
  pause = {disabled = going or wish == "Paused"},
  resume = {disabled = going or wish == "Running"},
  stop = {disabled = going or wish == "Stopped"},
  restart = {disabled = going or wish ~= "Running"},
}
