// JavaScript clients behind one pipe: commands as JSON lines on stdin, answers and events as JSON lines on stdout.
// Knows the clients mqtt.js, @stomp/stompjs, ws and a page in headless Chromium, and those of `stomp_clients.cjs`; knows no
// expectations, those are in `cases.py`.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');
const { pathToFileURL } = require('node:url');
const mqtt = require('mqtt');
const { Client, Versions } = require('@stomp/stompjs');
const WebSocket = require('ws');

// stompjs expects a browser's global.
global.WebSocket = WebSocket;
const stompKinds = require('./stomp_clients.cjs')(say);

const clients = new Map();

function say(object) {
  process.stdout.write(JSON.stringify(object) + '\n');
}

function heard(client, topic, payload, info = {}) {
  say({ client, event: 'message', topic, payload: Buffer.from(payload).toString('base64'), info });
}

function closed(client, info) {
  say({ client, event: 'closed', info });
}

const kinds = {
  ...stompKinds,

  mqtt(name, { url, version, will, clientId, clean = true, keepalive = 30, properties = {}, manual = false, reconnect = false }) {
    return new Promise((resolve, reject) => {
      const client = mqtt.connect(url, {
        protocolVersion: version, reconnectPeriod: reconnect ? 100 : 0, resubscribe: false, clean, keepalive, clientId,
        will: will && { ...will, payload: Buffer.from(will.payload, 'base64'), properties: toMqttJs(will.properties) },
        properties: version === 5 ? toMqttJs(properties) : undefined,
      });
      const unacknowledged = new Map();
      if (manual) client.handleMessage = (packet, done) => { unacknowledged.set(packet.messageId, done); };
      client.on('packetreceive', (packet) => {
        if (packet.cmd === 'disconnect') closed(name, { reasonCode: packet.reasonCode });
        if (packet.cmd === 'pingresp') say({ client: name, event: 'pong' });
      });
      client.on('message', (topic, payload, packet) => heard(name, topic, payload, {
        retain: packet.retain, qos: packet.qos, dup: packet.dup, id: packet.messageId, properties: fromMqttJs(packet.properties),
      }));
      client.on('close', () => closed(name, {}));
      client.once('error', reject);
      client.once('connect', (connack) => resolve({
        async subscribe(topic, { qos = 0, no_local: nl, retain_as_published: rap, retain_handling: rh, subscription_identifier: id } = {}) {
          const more = id ? { properties: { subscriptionIdentifier: id } } : {};
          const [granted] = await client.subscribeAsync(topic, { qos, ...(version === 5 ? { nl, rap, rh } : {}), ...more });
          return granted.qos;
        },
        publish: (topic, payload, { qos = 0, retain = false, properties: said = {} }) =>
          client.publishAsync(topic, payload, { qos, retain, properties: version === 5 ? toMqttJs(said) : undefined }),
        ack: async (id) => unacknowledged.get(id)(),
        ping: async () => client.sendPing(),
        kill: async () => client.stream.destroy(),
        // Forced when it is not connected: a goodbye would wait for the next connection.
        close: () => client.endAsync(!client.connected),
        opened: { sessionPresent: connack.sessionPresent, properties: fromMqttJs(connack.properties) },
      }));
    });
  },

  stomp(name, { url, version, heartbeat = 0 }) {
    return new Promise((resolve, reject) => {
      const client = new Client({
        brokerURL: url, stompVersions: new Versions([version]), reconnectDelay: 0,
        heartbeatIncoming: heartbeat, heartbeatOutgoing: heartbeat,
      });
      const receipts = new Map();
      let number = 0;
      const receipt = () => {
        const id = `r${++number}`;
        return { id, came: new Promise((done) => client.watchForReceipt(id, done)) };
      };
      client.onStompError = (frame) => {
        closed(name, { error: frame.headers.message, body: frame.body });
        reject(new Error(frame.headers.message));
      };
      client.onWebSocketClose = (event) => closed(name, { code: event.code, reason: String(event.reason) });
      client.onWebSocketError = (event) => reject(new Error(event.message));
      client.onConnect = (connected) => resolve({
        async subscribe(topic, { headers = {}, acknowledge } = {}) {
          const { id, came } = receipt();
          client.subscribe(`/topic/${topic}`, (message) => {
            if (acknowledge) message[acknowledge]();
            heard(name, message.headers.destination.replace(/^\/topic\//, ''), message.binaryBody, { headers: message.headers });
          }, { receipt: id, ...headers });
          await came;
        },
        async publish(topic, payload, { headers = {} } = {}) {
          const { id, came } = receipt();
          client.publish({ destination: `/topic/${topic}`, binaryBody: payload, headers: { receipt: id, ...headers } });
          await came;
        },
        kill: async () => client.forceDisconnect(),
        close: () => client.deactivate(),
        opened: { version: connected.headers.version, headers: connected.headers },
        receipts,
      });
      client.activate();
    });
  },

  ws(name, { url, protocols = [], deflate = false }) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url, protocols, { perMessageDeflate: deflate ? { threshold: 0 } : false });
      socket.on('message', (data, binary) => heard(name, null, data, { binary }));
      socket.on('close', (code, reason) => closed(name, { code, reason: String(reason) }));
      socket.on('pong', () => say({ client: name, event: 'pong' }));
      socket.once('error', reject);
      socket.once('unexpected-response', (request, response) => {
        reject(new Error(`HTTP ${response.statusCode}`));
        request.destroy();
      });
      socket.once('open', () => resolve({
        subscribe: async () => {},
        publish: (topic, payload, { binary = true } = {}) =>
          new Promise((done) => socket.send(binary ? payload : payload.toString(), { binary }, done)),
        ping: async () => socket.ping(),
        kill: async () => socket.terminate(),
        close: async () => socket.close(),
        opened: { protocol: socket.protocol, extensions: socket.extensions, bytes: () => 0 },
      }));
    });
  },

  async page(name, { url, protocols = [] }) {
    const page = await browserPage(name);
    const opened = await page.evaluate(`openSocket(${JSON.stringify(url)}, ${JSON.stringify(protocols)})`);
    return {
      subscribe: async () => {},
      publish: (topic, payload, { binary = false } = {}) =>
        page.evaluate(`sendBase64(${JSON.stringify(payload.toString('base64'))}, ${binary})`),
      kill: page.close,
      close: page.close,
      opened: JSON.parse(opened),
    };
  },
};

// The page is a file on disk, so its Origin is `null`; its script is what a beginner writes.
const PAGE = `<!doctype html><meta charset="utf-8"><title>interop</title><script>
  let socket;
  const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
  function openSocket(url, protocols) {
    return new Promise((resolve, reject) => {
      socket = protocols.length ? new WebSocket(url, protocols) : new WebSocket(url);
      socket.binaryType = 'arraybuffer';
      socket.onopen = () => resolve(JSON.stringify({ protocol: socket.protocol, extensions: socket.extensions }));
      socket.onerror = () => reject(new Error('the page sees only that it failed'));
      socket.onclose = (event) => report(JSON.stringify({ event: 'closed', info: { code: event.code, reason: event.reason } }));
      socket.onmessage = (event) => {
        const binary = typeof event.data !== 'string';
        const bytes = binary ? new Uint8Array(event.data) : new TextEncoder().encode(event.data);
        report(JSON.stringify({ event: 'message', payload: base64(bytes), info: { binary } }));
      };
    });
  }
  function sendBase64(text, binary) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    socket.send(binary ? bytes : new TextDecoder().decode(bytes));
  }
</script>`;

let browser;

async function browserPage(name) {
  browser ??= startBrowser();
  const { call, on, file } = await browser;
  const { targetId } = await call('Target.createTarget', { url: 'about:blank' });
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
  on(sessionId, 'Runtime.bindingCalled', ({ payload }) => say({ client: name, topic: null, ...JSON.parse(payload) }));
  await call('Runtime.enable', {}, sessionId);
  await call('Runtime.addBinding', { name: 'report' }, sessionId);
  await call('Page.enable', {}, sessionId);
  const loaded = new Promise((resolve) => on(sessionId, 'Page.loadEventFired', resolve));
  await call('Page.navigate', { url: pathToFileURL(file).href }, sessionId);
  await loaded;
  return {
    async evaluate(expression) {
      const answer = await call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true }, sessionId);
      if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.exception?.description ?? answer.exceptionDetails.text);
      return answer.result.value;
    },
    close: () => call('Target.closeTarget', { targetId }),
  };
}

async function startBrowser() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tidegate-page-'));
  const file = path.join(folder, 'page.html');
  // Once, for a page that loads while it is written anew is empty.
  fs.writeFileSync(file, PAGE);
  const child = spawn('chromium', [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-default-apps', '--disable-extensions', '--disable-dev-shm-usage',
    '--remote-debugging-port=0', `--user-data-dir=${path.join(folder, 'profile')}`, 'about:blank',
  ], { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
  const end = () => {
    try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it has ended */ }
    fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  };
  process.once('exit', end);
  const address = await new Promise((resolve, reject) => {
    const lines = readline.createInterface({ input: child.stderr });
    lines.on('line', (line) => { const found = /DevTools listening on (ws:\S+)/.exec(line); if (found) resolve(found[1]); });
    child.once('exit', (code) => reject(new Error(`chromium ended with ${code}`)));
    child.once('error', reject);
  });
  const socket = new WebSocket(address, { perMessageDeflate: false });
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  const waiting = new Map();
  const listeners = new Map();
  let number = 0;
  socket.on('message', (text) => {
    const message = JSON.parse(text);
    if (message.id) {
      const { resolve, reject } = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.error) reject(new Error(message.error.message)); else resolve(message.result);
    } else {
      listeners.get(`${message.sessionId} ${message.method}`)?.(message.params);
    }
  });
  return {
    file,
    call: (method, params, sessionId) => new Promise((resolve, reject) => {
      waiting.set(++number, { resolve, reject });
      socket.send(JSON.stringify({ id: number, method, params, sessionId }));
    }),
    on: (sessionId, method, listener) => listeners.set(`${sessionId} ${method}`, listener),
  };
}

// The standard's names in lower case, as the cases say them, and mqtt.js's own.
const OWN_NAMES = { user_property: 'userProperties' };
const FLAGS = ['payload_format_indicator', 'request_response_information', 'request_problem_information'];

function toMqttJs(properties = {}) {
  return Object.fromEntries(Object.entries(properties).map(([name, value]) => {
    const own = OWN_NAMES[name] ?? name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
    if (name === 'user_property') {
      const pairs = {};
      for (const [key, each] of value) (pairs[key] ??= []).push(each);
      return [own, pairs];
    }
    if (value.base64 !== undefined) return [own, Buffer.from(value.base64, 'base64')];
    return [own, FLAGS.includes(name) ? Boolean(value) : value];
  }));
}

function fromMqttJs(properties = {}) {
  return Object.fromEntries(Object.entries(properties).map(([own, value]) => {
    if (own === 'userProperties') {
      return ['user_property', Object.entries(value).flatMap(([key, each]) => [each].flat().map((one) => [key, one]))];
    }
    const name = own.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    if (name === 'subscription_identifier') return [name, [value].flat()];
    if (Buffer.isBuffer(value)) return [name, { base64: value.toString('base64') }];
    return [name, typeof value === 'boolean' ? Number(value) : value];
  }));
}

async function obey({ client, command, kind, options = {}, topic, payload, id, method, args }) {
  if (command === 'open') {
    const opened = await kinds[kind](client, options);
    clients.set(client, opened);
    return opened.opened;
  }
  const it = clients.get(client);
  if (command === 'call') return void await it[method](...args);
  if (!it[command]) throw new Error(`${client} cannot ${command}`);
  if (command === 'publish') return void await it.publish(topic, Buffer.from(payload, 'base64'), options);
  if (command === 'subscribe') return it.subscribe(topic, options);
  if (command === 'ack') return void await it.ack(id);
  return void await it[command]();
}

readline.createInterface({ input: process.stdin })
  .on('line', (line) => {
    const request = JSON.parse(line);
    obey(request).then(
      (value) => say({ answer: request.number, value: value ?? null }),
      (error) => say({ answer: request.number, error: String(error?.message ?? error) }),
    );
  })
  .on('close', () => process.exit(0));
process.on('unhandledRejection', (error) => say({ event: 'unhandled', info: String(error) }));
