-- Health of an LLMDeployment for Argo CD: resource.customizations.health.perennial.dev_LLMDeployment.
-- Argo CD gives the object as `obj` and wants a table with status and message.
local health = {status = "Progressing", message = "not seen by the operator yet"}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not seen the newest change yet"
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function is_true(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end
local function say(word, condition)
  health.status = word
  health.message = condition.reason .. ": " .. condition.message
  return health
end

-- Nothing more happens until somebody acts; the old revision may serve all the same.
if is_true("Stalled") then
  return say("Degraded", conditions.Stalled)
end
if is_true("Reconciling") then
  return say("Progressing", conditions.Reconciling)
end
local ready = conditions.Ready
if ready == nil then
  return health
end
-- Off on purpose.
if ready.reason == "Suspended" or ready.reason == "ScaledToZero" then
  return say("Suspended", ready)
end
-- Serves, while spec.rollout.paused holds a new revision back.
local progressing = conditions.Progressing
if progressing ~= nil and progressing.reason == "Paused" then
  return say("Suspended", progressing)
end
if ready.status == "True" then
  return say("Healthy", ready)
end
return say("Progressing", ready)
