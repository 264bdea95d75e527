-- Health of a Workspace, a WorkspaceClass or a Delegation: their conditions mean the same, and the same to kstatus.
-- Declared and confirmed is Healthy, also when Paused or Stopped: a Suspended resource would hold up every later wave.
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is(kind, value)
  return conditions[kind] ~= nil and conditions[kind].status == value
end

local function health(code, condition, otherwise)
  local message = condition ~= nil and condition.message or ""
  if message == "" then
    message = otherwise
  end
  return {status = code, message = message}
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", conditions.Deleting or conditions.Finished, "It is being deleted.")
end
if status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", nil, "The operator has not looked at this version yet; if this lasts, it is not running.")
end
if is("Stalled", "True") then
  return health("Degraded", conditions.Stalled, "It needs a person.")
end
if is("Reconciling", "True") then
  return health("Progressing", conditions.Reconciling, "The operator is at work on it.")
end

-- A Delegation has no Ready: Finished says what there is to say.
local result = conditions.Ready or conditions.Finished
if result == nil then
  return health("Progressing", nil, "The operator has not reported on it yet.")
end
if is("Ready", "Unknown") then
  return health("Progressing", result, "It is not known yet whether it is as declared.")
end
if is("Ready", "False") then
  return health("Degraded", result, "It is not as declared.")
end

local healthy = health("Healthy", result, "It is as declared.")
if status.effectiveReason == "Parent" then
  healthy.message = healthy.message .. " A parent's wish decides."
end
if status.pendingRestart then
  healthy.message = healthy.message .. " A change in its spec waits for the next restart."
end
return healthy
