// Runs every case, a few at a time: most of their time they wait, as SDKs do between polls.
'use strict';

const AT_ONCE = 6;

const cases = ['registration', 'hub', 'edges'].flatMap((name) => require(`./cases-${name}`)());
const only = process.env.INTEROP_ONLY;
const chosen = cases.filter(([name]) => !only || name.includes(only));

async function worker() {
  for (let next = chosen.shift(); next; next = chosen.shift()) {
    const [name, run] = next;
    try {
      await run();
    } catch (error) {
      console.log(`FAILED  ${name}\n${error.stack}`);
    }
  }
}

process.on('unhandledRejection', (error) => console.log(`unhandled: ${error && error.stack}`));
Promise.all(Array.from({ length: AT_ONCE }, worker)).then(() => process.exit(0));
