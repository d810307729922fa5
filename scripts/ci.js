/**
 * The stages of .ci/run: `npm test`, then what takes longer. A stage that prints its own closing line is counted by it,
 * any other one is one test.
 */
const { runStages } = require('./stages')

const campaign = (name, ...args) => ['node', `scripts/campaigns/${name}.js`, ...args]

const STAGES = [
  { name: 'npm test', command: ['npm', 'test', '--silent'] },
  { name: 'encodeIterable in bounded memory', command: campaign('encode-memory', '--megabytes', '128') },
  { name: 'a big token store', command: campaign('big-store', '--gigabytes', '1') },
  { name: 'full disk and read-only folder', command: campaign('refused-writes') },
  { name: 'encoding, killed', command: campaign('encode-kill', '--rounds', '24', '--megabytes', '6') },
  { name: 'resume, byte for byte', command: campaign('resume', '--steps', '60') },
  {
    name: 'CUDA kernels compile for sm_80 and sm_90 without spills',
    command: ['node', 'scripts/checks/ptxas.js'],
    needs: [
      ['node', 'scripts/checks/ptxas.js', '--has-nvcc'],
      'set CUDA_HOME to where bin/nvcc of CUDA 13 is',
    ],
  },
  { name: 'npm packages', command: ['npm', 'run', '--silent', 'package-test'] },
]

runStages(STAGES)
