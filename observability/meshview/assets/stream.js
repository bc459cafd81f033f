// The stream of what changes. A browser's EventSource comes back by itself when the
// connection breaks, with the number of the last event, and gets what was missed. When
// it is refused it does not come back, and we do; it gets the last events then.

const patience = 5000; // milliseconds until the next try after a refusal

// follow calls on.picture and on.happened for what comes, the same event more than once
// maybe, and on.state with 'live' or 'lost'.
export function follow(on) {
  const stream = new EventSource('stream');
  stream.addEventListener('open', () => on.state('live'));
  stream.addEventListener('picture', (event) => on.picture(JSON.parse(event.data)));
  stream.addEventListener('happened', (event) => on.happened(JSON.parse(event.data)));
  stream.addEventListener('error', () => {
    on.state('lost');
    if (stream.readyState === EventSource.CLOSED) setTimeout(follow, patience, on);
  });
}
