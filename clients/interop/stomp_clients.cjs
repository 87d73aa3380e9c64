// STOMP clients from JavaScript for `agent.cjs`: @stomp/stompjs and webstomp-client, each with the same methods.
// Knows no expectations, those are in `cases_stomp*.py`.
'use strict';

const { Client, Versions } = require('@stomp/stompjs');
const webstomp = require('webstomp-client');
const WebSocket = require('ws');

const headersOf = (frame) => ({ ...frame.headers });
const tokenOf = (version) => `v${version.replace('.', '')}.stomp`;

// A socket that remembers of what kind the last message was.
function open(url, tokens) {
  const socket = new WebSocket(url, tokens);
  socket.on('message', (_data, binary) => { socket.wasBinary = binary; });
  return socket;
}

// What both do with a message: keep it for ACK and NACK, and say it.
function listener(name, say, messages, bytesOf, socketOf) {
  return (message) => {
    const number = messages.push(message) - 1;
    say({
      client: name, event: 'message', topic: message.headers.destination,
      payload: Buffer.from(bytesOf(message)).toString('base64'),
      info: { headers: headersOf(message), number, binary: socketOf().wasBinary },
    });
  };
}

// `ack` and `nack` go through the message that was heard; `ackId` is for identifiers that nobody gave.
function methodsOf(client, messages, onMessage, send) {
  return {
    send,
    subscribe: async (destination, headers) => void client.subscribe(destination, onMessage, headers),
    unsubscribe: async (id, headers) => client.unsubscribe(id, headers),
    ack: async (number, headers) => messages[number].ack(headers),
    nack: async (number, headers) => messages[number].nack(headers),
    ackId: async (id, subscription, headers) => client.ack(id, subscription, headers),
    begin: async (transaction) => void client.begin(transaction),
    commit: async (transaction) => client.commit(transaction),
    abort: async (transaction) => client.abort(transaction),
  };
}

// A client that is refused is an answer too: the ERROR it got.
const refusal = (frame) => ({ opened: { refused: { headers: headersOf(frame), body: frame.body } } });

const kinds = (say) => ({
  stompjs(name, { url, versions, tokens = versions.map(tokenOf), headers = {}, heartbeat = [0, 0], more = {} }) {
    return new Promise((resolve, reject) => {
      const messages = [];
      const client = new Client({
        stompVersions: new Versions(versions), connectHeaders: headers, reconnectDelay: 0,
        disconnectHeaders: { receipt: 'goodbye' },
        heartbeatOutgoing: heartbeat[0], heartbeatIncoming: heartbeat[1], ...more,
        webSocketFactory: () => open(url, tokens),
        onStompError: (frame) => {
          say({ client: name, event: 'error', headers: headersOf(frame), body: frame.body });
          resolve(refusal(frame));
        },
        onUnhandledReceipt: (frame) => say({ client: name, event: 'receipt', headers: headersOf(frame) }),
        onDisconnect: (frame) => say({ client: name, event: 'goodbye', headers: headersOf(frame) }),
        onHeartbeatReceived: () => say({ client: name, event: 'beat' }),
        onHeartbeatLost: () => say({ client: name, event: 'lost' }),
        onWebSocketClose: (event) => say({ client: name, event: 'closed', info: { code: event.code } }),
        onWebSocketError: (event) => reject(new Error(event.message)),
      });
      const onMessage = listener(name, say, messages, (message) => message.binaryBody, () => client.webSocket);
      client.onUnhandledMessage = onMessage;
      const send = async (destination, payload, headers, { text = false, skipLength = false } = {}) => {
        const bytes = Buffer.from(payload, 'base64');
        const body = text ? { body: bytes.toString() } : { binaryBody: bytes };
        client.publish({ destination, headers, skipContentLengthHeader: skipLength, ...body });
      };
      client.onConnect = (connected) => resolve({
        ...methodsOf(client, messages, onMessage, send),
        raw: async (text) => client.webSocket.send(text),
        kill: async () => client.webSocket.terminate(),
        close: () => client.deactivate(),
        opened: { headers: headersOf(connected), token: client.webSocket.protocol },
      });
      client.activate();
    });
  },

  webstomp(name, { url, versions, tokens = versions.map(tokenOf), headers = {}, heartbeat = [0, 0], more = {} }) {
    return new Promise((resolve, reject) => {
      const messages = [];
      const socket = open(url, tokens);
      const [outgoing, incoming] = heartbeat;
      const client = webstomp.over(socket, { heartbeat: { outgoing, incoming }, debug: false, ...more });
      const onMessage = listener(name, say, messages, (message) => message.body, () => socket);
      client.onreceive = onMessage;
      client.onreceipt = (frame) => say({ client: name, event: 'receipt', headers: headersOf(frame) });
      // It tells of heart-beats nowhere else.
      client.debug = (text) => { if (text === '<<< PONG') say({ client: name, event: 'beat' }); };
      socket.on('error', reject);
      const send = async (destination, payload, headers, { skipLength = false } = {}) => {
        const more = skipLength ? { 'content-length': false } : {};
        client.send(destination, Buffer.from(payload, 'base64').toString(), { ...headers, ...more });
      };
      client.connect({ ...headers }, (connected) => resolve({
        ...methodsOf(client, messages, onMessage, send),
        raw: async (text) => socket.send(text),
        kill: async () => socket.terminate(),
        close: async (headers) => client.disconnect(undefined, headers),
        opened: { headers: headersOf(connected), token: socket.protocol },
      }), (problem) => {
        if (problem.command === 'ERROR') {
          say({ client: name, event: 'error', headers: headersOf(problem), body: problem.body });
          resolve(refusal(problem));
        } else {
          say({ client: name, event: 'closed', info: { code: problem.code } });
        }
      });
    });
  },
});

module.exports = kinds;
