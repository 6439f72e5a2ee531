// Starts the service and runs every case against it, a few at a time: most of their time they wait, as SDKs do between
// polls. The last ones have the service for themselves.
'use strict';

const { Serving } = require('./serving');

const AT_ONCE = 6;

const cases = (names) => names.flatMap((name) => require(`./cases-${name}`).cases);
const only = process.env.INTEROP_ONLY;
const chosen = (all) => all.filter(({ name }) => !only || name.includes(only));

async function work(queue, serving) {
  for (let next = queue.shift(); next; next = queue.shift()) {
    try {
      await next.run(serving);
    } catch (error) {
      console.log(`FAILED  ${next.name}\n${error.stack}`);
      process.exitCode = 1;
    }
  }
}

async function main() {
  const serving = await Serving.start();
  const together = chosen(cases(['slow', 'registration', 'refused', 'hub', 'tpm', 'edges', 'service', 'registry', 'docs']));
  await Promise.all(Array.from({ length: AT_ONCE }, () => work(together, serving)));
  await work(chosen(cases(['restart', 'hostile'])), serving);
  await serving.stop();
}

process.on('unhandledRejection', (error) => {
  console.log(`unhandled: ${error && error.stack}`);
  process.exitCode = 1;
});
main().then(() => process.exit());
