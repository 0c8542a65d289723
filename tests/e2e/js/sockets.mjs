/** Reports every WebSocket that a scope opens, without changing what the SDK gets. */
export function observeSockets(scope, Base, emit) {
  scope.WebSocket = class WebSocket extends Base {
    constructor(...args) {
      super(...args);
      emit('socket', { state: 'connecting' });
      this.addEventListener('open', () => emit('socket', { state: 'open' }));
      this.addEventListener('close', ({ code, reason }) => emit('socket', { state: 'closed', code, reason }));
    }
  };
}
