-- What may be asked of a Delegation now. Hold keeps back what has not been sent; nothing is asked of what is over.
local wish = obj.spec.desiredState or "Running"
local phase = obj.status ~= nil and obj.status.phase or nil
local over = phase == "Completed" or phase == "Failed" or phase == "Cancelled"
local going = over or obj.metadata.deletionTimestamp ~= nil

return {
  cancel = {disabled = going or wish == "Stopped"},
  hold = {disabled = going or wish ~= "Running"},
  release = {disabled = going or wish ~= "Paused"},
}
