/** `.ci/run`: runs `npm test`, then the stages that take longer. */
const { runStages } = require('./stages')

const addon = (platform) => ['node', 'scripts/packages/build-addon.js', platform]
const campaign = (name, ...args) => ['node', `scripts/campaigns/${name}.js`, ...args]

/** Fetches the CUDA compiler. If it cannot, the stages that need the compiler are skipped. */
const cudaCompiler = [
  ['node', 'scripts/cuda-toolkit.js'],
  'there is no CUDA 13.0 compiler (see node scripts/cuda-toolkit.js)',
]
const CORE = ['-p', 'kindling-core']
const LOOM = 'crates/kindling-core/loom/Cargo.toml'
const cudaFolder = 'target/cuda-addon'
const cudaAddon = `${cudaFolder}/kindling.linux-x64-gnu.node`

const STAGES = [
  { name: 'npm test', command: ['npm', 'test', '--silent'] },
  {
    name: 'encodeIterable uses bounded memory',
    command: campaign('encode-memory', '--megabytes', '128'),
  },
  { name: 'token stores larger than memory', command: campaign('big-store', '--gigabytes', '1') },
  { name: 'full disks and read-only folders', command: campaign('refused-writes') },
  {
    name: 'every failing file operation leaves what was there',
    command: campaign('fault-injection/index', '--stride', '7'),
  },
  {
    name: 'every failing large allocation is an error, and leaves what was there',
    command: campaign('fault-injection/index', '--fail', 'allocations', '--stride', '2'),
  },
  {
    name: 'the pool and the shared cache are right in every order of their threads (loom)',
    command: ['cargo', 'test', '--locked', '--release', '--manifest-path', LOOM],
  },
  {
    name: 'a killed encoder can be resumed',
    command: campaign('encode-kill', '--rounds', '24', '--megabytes', '6'),
  },
  {
    name: 'a killed training can be resumed',
    command: campaign('train-kill', '--rounds', '12', '--races', '4'),
  },
  {
    name: 'a power cut at any moment loses nothing that was named',
    command: campaign('fault-injection/dropped-writes', '--stride', '9', '--random', '1'),
  },
  {
    name: 'fuzzing every reader of outside bytes',
    command: campaign('fuzz', '--seconds', '10', '--timeout', '60'),
    needs: [campaign('fuzz', '--can-run'), 'there is no nightly Rust, C++ compiler or cargo-fuzz'],
  },
  {
    name: 'dependencies: vulnerabilities, licences, sources',
    command: ['node', 'scripts/checks/dependencies.js'],
  },
  {
    name: 'damage of any file of a run or its data is found',
    command: campaign('damage', '--flips', '16', '--cuts', '4'),
  },
  {
    name: 'objects that are opened and closed, and steps, leave no memory',
    command: campaign('leaks', '--steps', '2000'),
  },
  {
    name: 'trainings at once in one process, aborted at random moments',
    command: campaign('many-trainings'),
  },
  {
    name: 'a resumed run is identical, byte for byte',
    command: campaign('resume', '--steps', '60'),
  },
  {
    name: 'the dashboard and reports work in a browser',
    command: ['node', 'scripts/checks/dashboard.js'],
    needs: [
      ['node', 'scripts/checks/chromium.js'],
      'there is no Chromium, and apt cannot install it (set KINDLING_CHROMIUM)',
    ],
  },
  {
    name: 'the commands of the README and the docs run',
    command: ['node', 'scripts/checks/doc-blocks/index.js'],
  },
  {
    name: 'the documentation site builds, and its links lead somewhere',
    command: ['npm', 'run', '--silent', 'docs:build'],
  },
  {
    name: 'the documentation site works in a browser, offline',
    command: ['node', 'scripts/checks/site.js'],
    needs: [
      ['node', 'scripts/checks/chromium.js'],
      'there is no Chromium, and apt cannot install it (set KINDLING_CHROMIUM)',
    ],
  },
  {
    name: 'TensorBoard reads the events of a run',
    command: ['node', 'scripts/checks/tensorboard.js'],
    needs: [
      ['node', 'scripts/checks/tensorboard.js', '--has-tensorboard'],
      'there is no TensorBoard (pip install tensorboard; set KINDLING_PYTHON)',
    ],
  },
  {
    name: 'the CUDA kernels compile for sm_80 and sm_90a without spills',
    command: ['node', 'scripts/checks/ptxas.js'],
    needs: cudaCompiler,
  },
  {
    name: 'the addon with CUDA links no CUDA library',
    command: ['node', 'scripts/build-cuda.js', '--output-dir', cudaFolder],
    needs: cudaCompiler,
  },
  {
    name: 'the addon with CUDA runs on an emulated GPU, and without CUDA',
    command: ['node', 'scripts/checks/fake-libcuda.js', cudaAddon],
    needs: [
      ['node', 'scripts/checks/fake-libcuda.js', cudaAddon, '--has-cuda'],
      'there is no addon with CUDA',
    ],
  },
  {
    name: 'clippy with the feature cuda',
    command: ['node', 'scripts/build-cuda.js', '--clippy'],
    needs: cudaCompiler,
  },
  {
    name: 'the engine is right with KINDLING_ISA=scalar',
    command: ['env', 'KINDLING_ISA=scalar', 'cargo', 'test', '--locked', '--release', ...CORE],
  },
  {
    name: 'the library is right with KINDLING_ISA=avx2',
    command: ['env', 'KINDLING_ISA=avx2', 'npx', '--no-install', 'ava'],
  },
  {
    name: 'the addon for linux-x64-gnu needs no more than glibc 2.28',
    command: addon('linux-x64-gnu'),
    needs: cudaCompiler,
  },
  { name: 'the addon for linux-arm64-gnu builds', command: addon('linux-arm64-gnu') },
  {
    name: 'the packages install and run without a compiler',
    command: ['node', 'scripts/packages/install-test.js'],
  },
  {
    name: 'the addon runs on older systems and other processors',
    command: ['node', 'scripts/packages/foreign-systems.js'],
  },
]

runStages(STAGES)
