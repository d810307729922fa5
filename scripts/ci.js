/**
 * The stages of .ci/run: `npm test`, then what takes longer. A stage that prints its own closing line is counted by it,
 * any other one is one test.
 */
const { runStages } = require('./stages')

const STAGES = [
  { name: 'npm test', command: ['npm', 'test', '--silent'] },
  { name: 'npm packages', command: ['npm', 'run', '--silent', 'package-test'] },
]

runStages(STAGES)
