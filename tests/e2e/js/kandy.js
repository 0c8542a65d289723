/**
 * What the tests call in a page that carries an unmodified Kandy.js (the global `Kandy`), as a plain script after it.
 *
 * Reports `event` with the name, the payload and what the SDK's getters said at that moment.
 */
(() => {
  const NAMES = [
    'auth:change', 'auth:credentialsSet', 'auth:error', 'auth:resub',
    'subscription:change', 'subscription:resub', 'subscription:error', 'request:error', 'ws:change',
    'notification:received', 'notifications:change', 'notifications:error',
    'presence:selfChange', 'presence:change', 'presence:subscribe', 'presence:unsubscribe', 'presence:error',
    'conversations:new', 'conversations:change', 'messages:change', 'messages:error',
    'users:change', 'users:error', 'directory:change', 'directory:error',
    'contacts:new', 'contacts:change', 'contacts:error',
    'call:start', 'call:receive', 'call:stateChange', 'call:operation', 'call:error',
    'callHistory:change', 'callHistory:error', 'voicemail:change', 'voicemail:error',
    'sip:subscriptionChange', 'sip:eventsChange', 'sip:error', 'clickToCall:start', 'clickToCall:error',
  ];
  let sdk;

  /** A copy that is JSON: the SDKs hand out errors with and without Error as their prototype. */
  function plain(value) {
    const text = JSON.stringify(value ?? null, (_, member) => {
      if (member instanceof Error) return { ...member, name: member.name, message: member.message, code: member.code };
      return member;
    });
    return text === undefined ? null : JSON.parse(text);
  }

  function state() {
    return plain({
      connection: sdk.getConnection?.() ?? null,
      user: sdk.getUserInfo?.() ?? null,
      services: sdk.services?.getSubscriptions?.() ?? null,
    });
  }

  function observe(name) {
    sdk.on(name, (payload) => {
      const value = { name, payload: plain(payload), ...state() };
      window.reportToDriver(JSON.stringify({ kind: 'event', value }));
    });
  }

  /** The conversation with these parties, which is made if there is none yet. */
  function conversation(recipient) {
    return sdk.conversation.get(recipient) ?? sdk.conversation.create(recipient);
  }

  window.offhook = {
    create(configuration) {
      sdk = window.Kandy.create(configuration);
      NAMES.forEach(observe);
    },
    state,
    /** Calls `sdk.a.b(...args)` for the path `a.b`. */
    async call(path, args) {
      const names = path.split('.');
      const method = names.pop();
      const owner = names.reduce((object, name) => object[name], sdk);
      return plain(await owner[method](...args));
    },
    say(recipient, text) {
      conversation(recipient).createMessage({ type: 'text', text }).send();
    },
    messages(recipient) {
      const found = sdk.conversation.get(recipient);
      return found === undefined ? [] : plain(found.getMessages());
    },
    fetchMessages(recipient, amount) {
      conversation(recipient).fetchMessages(amount);
    },
    deleteMessages(recipient, ids) {
      conversation(recipient).deleteMessages(ids);
    },
    deleteConversation(recipient) {
      conversation(recipient).delete();
    },
    conversations() {
      return plain(sdk.conversation.getAll());
    },
  };
})();
