// An agent on the JavaScript SDK; others.py says which words it obeys. It listens on the port that it is given.
import { DefaultRequestHandler, InMemoryTaskStore, AgentEvent } from '@a2a-js/sdk/server';
import { agentCardHandler, jsonRpcHandler, UserBuilder } from '@a2a-js/sdk/server/express';
import { Role, TaskState } from '@a2a-js/sdk';
import express from 'express';

const port = Number(process.argv[2]);
const cancelled = new Set();
const text = (value) => ({ content: { $case: 'text', value }, metadata: undefined, filename: '', mediaType: '' });

const executor = {
  async execute({ taskId, contextId, userMessage }, bus) {
    const status = (state, words) => ({
      state,
      timestamp: new Date().toISOString(),
      message: words && {
        messageId: `${taskId}-${state}`, taskId, contextId, role: Role.ROLE_AGENT, parts: [text(words)],
        metadata: undefined, extensions: [], referenceTaskIds: [],
      },
    });
    const tell = (state, words) =>
      bus.publish(AgentEvent.statusUpdate({ taskId, contextId, status: status(state, words), metadata: undefined }));
    bus.publish(AgentEvent.task({
      id: taskId, contextId, status: status(TaskState.TASK_STATE_SUBMITTED), artifacts: [],
      history: [userMessage], metadata: undefined,
    }));
    tell(TaskState.TASK_STATE_WORKING);
    const word = userMessage.parts[0].content.value;
    const end = Date.now() + (word === 'long' ? 600_000 : 1_000);
    while (Date.now() < end && !cancelled.has(taskId)) await new Promise((done) => setTimeout(done, 20));
    if (cancelled.has(taskId)) tell(TaskState.TASK_STATE_CANCELED);
    else if (word === 'fail') tell(TaskState.TASK_STATE_FAILED, 'It broke.');
    else if (word === 'ask') tell(TaskState.TASK_STATE_INPUT_REQUIRED, 'Which one?');
    else {
      bus.publish(AgentEvent.artifactUpdate({
        taskId, contextId, append: false, lastChunk: true, metadata: undefined,
        artifact: {
          artifactId: 'answer', name: 'answer', description: '', parts: [text(`You said: ${word}`)],
          metadata: undefined, extensions: [],
        },
      }));
      tell(TaskState.TASK_STATE_COMPLETED);
    }
    bus.finished();
  },
  async cancelTask(taskId) {
    cancelled.add(taskId);
  },
};

const card = {
  name: 'javascript', description: 'A test agent.', version: '1', provider: undefined,
  supportedInterfaces: [
    { url: `http://127.0.0.1:${port}/rpc`, protocolBinding: 'JSONRPC', tenant: '', protocolVersion: '1.0' },
  ],
  capabilities: { streaming: true, pushNotifications: false, extensions: [] },
  securitySchemes: {}, securityRequirements: [], defaultInputModes: ['text'], defaultOutputModes: ['text'],
  skills: [], signatures: [],
};
const handler = new DefaultRequestHandler(card, new InMemoryTaskStore(), executor);
const app = express();
app.use('/.well-known/agent-card.json', agentCardHandler({ agentCardProvider: handler }));
app.use('/rpc', jsonRpcHandler({ requestHandler: handler, userBuilder: UserBuilder.noAuthentication }));
app.listen(port, '127.0.0.1');
