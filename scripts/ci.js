/**
 * The stages of .ci/run: `npm test`, then what takes longer. A stage that prints its own closing line is counted by it,
 * any other one is one test.
 */
const { runStages } = require('./stages')

const campaign = (name, ...args) => ['node', `scripts/campaigns/${name}.js`, ...args]

/** Fetches CUDA's compiler; where that is impossible the stages that need it are skipped. */
const compiler = [
  ['node', 'scripts/cuda-toolkit.js'],
  'no compiler of CUDA 13.0 (see node scripts/cuda-toolkit.js)',
]
const cudaFolder = 'target/cuda-addon'
const cudaAddon = `${cudaFolder}/kindling.linux-x64-gnu.node`

const STAGES = [
  { name: 'npm test', command: ['npm', 'test', '--silent'] },
  {
    name: 'encodeIterable in bounded memory',
    command: campaign('encode-memory', '--megabytes', '128'),
  },
  { name: 'a big token store', command: campaign('big-store', '--gigabytes', '1') },
  { name: 'full disk and read-only folder', command: campaign('refused-writes') },
  {
    name: 'encoding, killed',
    command: campaign('encode-kill', '--rounds', '24', '--megabytes', '6'),
  },
  { name: 'resume, byte for byte', command: campaign('resume', '--steps', '60') },
  {
    name: 'CUDA kernels compile for sm_80 and sm_90 without spills',
    command: ['node', 'scripts/checks/ptxas.js'],
    needs: compiler,
  },
  {
    name: 'the addon with CUDA builds and needs no library of CUDA',
    command: ['node', 'scripts/build-cuda.js', '--output-dir', cudaFolder],
    needs: compiler,
  },
  {
    name: 'the addon with CUDA over an emulated GPU, and without CUDA',
    command: ['node', 'scripts/checks/fake-libcuda.js', cudaAddon],
    needs: [
      ['node', 'scripts/checks/fake-libcuda.js', cudaAddon, '--has-cuda'],
      'there is no addon with CUDA',
    ],
  },
  {
    name: 'clippy of the feature cuda',
    command: ['node', 'scripts/build-cuda.js', '--clippy'],
    needs: compiler,
  },
  { name: 'npm packages', command: ['npm', 'run', '--silent', 'package-test'] },
]

runStages(STAGES)
