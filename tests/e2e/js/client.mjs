/**
 * One ChatKitty client with the same commands for every SDK generation.
 *
 * The same module runs in a Node worker and in a page of a browser. It only calls what the published SDKs export;
 * where generations spell an operation differently, `method` picks the spelling the SDK has.
 */

const OBSERVERS = {
  presence: ['onUserPresenceChanged'],
  contact: ['onUserUpdated'],
  blocked: ['onUserBlocked'],
  unblocked: ['onUserUnblocked'],
};

export class Client {
  #sdk;
  #emit;
  #configuration;
  #kitty;
  #connection;
  #paginator;

  /**
   * @param sdk the namespace of one SDK package
   * @param configuration `{apiKey, host, secure}`
   * @param emit called with `(kind, value)` for everything the SDK reports by itself
   */
  constructor(sdk, configuration, emit) {
    this.#sdk = sdk;
    this.#configuration = configuration;
    this.#emit = emit;
    if (!sdk.getSdkClient) this.#adopt(new sdk.default({ ...configuration, isSecure: configuration.secure }));
    else this.#adopt(sdk.getSdkClient(configuration.apiKey, { $environment: this.#environment() }));
  }

  /** Runs one command; the answer is plain JSON. What the SDK throws is thrown on. */
  async call(command, args) {
    const handler = COMMANDS[command];
    if (!handler) throw new Error(`no such command: ${command}`);
    return handler(this, ...args);
  }

  get kitty() {
    return this.#kitty;
  }

  async start(request) {
    const result = await this.#kitty.startSession(request);
    if (result.succeeded) this.observe();
    return outcome(result, { user: result.session?.user });
  }

  async connect({ username, authParams }) {
    const { apiKey } = this.#configuration;
    this.#connection = await this.#sdk.connectApi({
      apiKey, username, authParams, $environment: this.#environment(),
    });
    this.#adopt(this.#connection.getSdkClient());
    this.observe();
    this.#connection.user.watch((user) => this.#emit('watched', user));
    return { succeeded: true, failed: false, user: this.#connection.user.value };
  }

  async updateUser(fields) {
    await this.#connection.updateUser(fields);
    return { succeeded: true, failed: false, user: this.#connection.user.value };
  }

  dispose() {
    return this.#connection.dispose();
  }

  /** Registers the observers that an SDK only takes while a session is active. */
  observe() {
    for (const [kind, names] of Object.entries(OBSERVERS)) {
      const register = optional(this.#kitty, ...names);
      register?.((value) => this.#emit(kind, value));
    }
    return null;
  }

  async page(result) {
    if (!result.succeeded) return outcome(result);
    this.#paginator = result.paginator;
    return this.#shown();
  }

  async turn(direction) {
    this.#paginator = await this.#paginator[direction]();
    return this.#shown();
  }

  /** The item of the page shown last whose user is called `name`. */
  item(name) {
    return this.#paginator.items.find((item) => (item.user ?? item).name === name);
  }

  #shown() {
    const { items, hasNextPage, hasPrevPage } = this.#paginator;
    const users = items.map((item) => item.user ?? item);
    return { succeeded: true, failed: false, users, hasNextPage, hasPrevPage };
  }

  #environment() {
    const { host, secure } = this.#configuration;
    return { host, secure };
  }

  #adopt(kitty) {
    this.#kitty = kitty;
    kitty.onCurrentUserChanged((user) => this.#emit('self', user));
    optional(kitty, 'onCurrentUserOnline')?.(() => this.#emit('online', null));
    optional(kitty, 'onCurrentUserOffline')?.(() => this.#emit('offline', null));
  }
}

const COMMANDS = {
  start: (client, request) => client.start(request),
  end: async (client) => { await client.kitty.endSession(); return null; },
  connect: (client, request) => client.connect(request),
  updateUser: (client, fields) => client.updateUser(fields),
  dispose: async (client) => { await client.dispose(); return null; },
  observe: (client) => client.observe(),
  me: async (client) => {
    const result = await method(client.kitty, 'retrieveCurrentUser', 'getCurrentUser')();
    return outcome(result, { user: result.user });
  },
  update: async (client, fields) => {
    const result = await client.kitty.updateCurrentUser((user) => ({ ...user, ...fields }));
    return outcome(result, { user: result.user });
  },
  list: async (client, filter) =>
    client.page(await method(client.kitty, 'listUsers', 'getUsers')(filter ? { filter } : undefined)),
  next: (client) => client.turn('nextPage'),
  prev: (client) => client.turn('prevPage'),
  count: async (client, filter) => {
    const result = await method(client.kitty, 'listUsersCount', 'getUsersCount')(filter ? { filter } : undefined);
    return outcome(result, { count: result.count });
  },
  user: async (client, id) => {
    const result = await method(client.kitty, 'retrieveUser', 'getUser')(id);
    return outcome(result, { user: result.user });
  },
  block: async (client, name) => {
    const result = await client.kitty.blockUser({ user: client.item(name) });
    return outcome(result, { user: result.user });
  },
  blocked: async (client) =>
    client.page(await method(client.kitty, 'listUserBlockedRecords', 'getUserBlockList')({})),
  unblock: async (client, name) => {
    const unblock = method(client.kitty, 'deleteUserBlockedRecord', 'deleteUserBlockListItem');
    const result = await unblock({ item: client.item(name) });
    return outcome(result, { user: result.user });
  },
  picture: async (client, { uri, name }) => {
    const result = await client.kitty.updateCurrentUserDisplayPicture({ file: { uri, name } });
    return outcome(result, { user: result.user });
  },
  fetch: async (_client, url) => {
    const response = await fetch(url);
    const body = await response.arrayBuffer();
    return { status: response.status, type: response.headers.get('content-type'), size: body.byteLength };
  },
};

function optional(target, ...names) {
  const name = names.find((candidate) => typeof target[candidate] === 'function');
  return name && target[name].bind(target);
}

function method(target, ...names) {
  const found = optional(target, ...names);
  if (!found) throw new Error(`this SDK has none of ${names.join(', ')}`);
  return found;
}

function outcome(result, fields = {}) {
  if (result.failed) return { succeeded: false, failed: true, error: describe(result.error) };
  return { succeeded: result.succeeded, failed: result.failed, ...fields };
}

/** An error as JSON: the SDK's own error object, an axios error, or anything else that was thrown. */
export function describe(error) {
  const { error: code, timestamp, response } = error;
  const name = error.constructor?.name;
  return { name, code, message: error.message, timestamp, status: response?.status, body: response?.data };
}
