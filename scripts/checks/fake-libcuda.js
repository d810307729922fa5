/**
 * Tests an addon with CUDA end to end on a machine without a GPU: over a fake libcuda and
 * libcublasLt that compute on the CPU (crates/kindling-fake-libcuda), without them, and with broken
 * and old ones. Each test runs in a process of its own.
 *
 * Usage: node scripts/checks/fake-libcuda.js ADDON.node [--has-cuda]
 */
const assert = require('node:assert/strict')
const { execFileSync, spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')

const LIBRARIES = ['libcuda.so.1', 'libcublasLt.so.13']
const SHAPE = {
  vocabSize: 61,
  dModel: 32,
  numHeads: 4,
  numKvHeads: 2,
  dFf: 48,
  numLayers: 2,
  maxSeqLength: 24,
  qkvBias: true,
  seed: 5,
  threads: 2,
}

/**
 * The tests by what they claim. `libraries` are the fake libraries that the addon finds (default:
 * all), and `environment` configures them. The test is `run`, or `command`, which also fails if its
 * output matches `failsIf`.
 */
const TESTS = {
  'without CUDA libraries the addon computes on the CPU and says what is missing': {
    libraries: [],
    async run(kindling, native) {
      assert.equal(native.cudaDeviceCount(), 0)
      assert(Number.isFinite((await train(kindling, 'cpu', 1)).losses[0]))
      assert(Number.isFinite((await train(kindling, 'auto', 1)).losses[0]))
      assert.equal(native.cudaProblem(), null)
      await refused(
        kindling,
        'ERR_DEVICE_UNAVAILABLE',
        /libcuda\.so\.1 was not found.*--device cpu/,
      )
    },
  },
  'a missing cuBLAS is reported': {
    libraries: ['libcuda.so.1'],
    async run(kindling) {
      await refused(kindling, 'ERR_DEVICE_UNAVAILABLE', /libcublasLt\.so\.13 was not found/)
      await fallsBack(kindling, /GPU is not used.*libcublasLt/)
    },
  },
  'an old driver is reported with its version': {
    environment: { VERSION: '12040' },
    async run(kindling) {
      await refused(
        kindling,
        'ERR_DEVICE_UNAVAILABLE',
        /CUDA 12\.4, but this build needs 13\.0.*580/,
      )
      await fallsBack(kindling, /GPU is not used.*CUDA 12\.4, but this build needs 13\.0/)
    },
  },
  'a driver that fails to start is reported': {
    environment: { INIT: '100' },
    run: (kindling) => refused(kindling, 'ERR_DEVICE_UNAVAILABLE', /NO_DEVICE.*nvidia-smi/),
  },
  'a GPU that is too old is reported': {
    environment: { CAPABILITY: '75' },
    async run(kindling) {
      await refused(kindling, 'ERR_DEVICE_UNAVAILABLE', /capability 7\.5.*8\.0/)
      await fallsBack(kindling, /GPU is not used.*capability 7\.5.*8\.0/)
    },
  },
  'a device that does not exist is reported': {
    run: (kindling) =>
      refused(kindling, 'ERR_DEVICE_UNAVAILABLE', /cuda:1 does not exist.*1 device/, 'cuda:1'),
  },
  'running out of device memory names the amount and what to lower': {
    environment: { MEMORY: String((32 << 20) + 100_000) },
    run: (kindling) =>
      refused(
        kindling,
        'ERR_OUT_OF_MEMORY',
        /device memory for .* uses .* of .*; lower batch_size/,
      ),
  },
  'a device with too little memory to start is reported': {
    environment: { MEMORY: '1000000' },
    run: (kindling) => refused(kindling, 'ERR_OUT_OF_MEMORY', /device memory/),
  },
  'f32 training matches the CPU, and its checkpoint continues there': {
    run: (kindling) => follows(kindling, {}, 1e-4),
  },
  'bf16 training matches the CPU up to rounding, and its checkpoint continues there': {
    run: (kindling) => follows(kindling, { dtype: 'bf16' }, 2e-2),
  },
  'f32 products use TF32 only if requested': {
    async run(kindling) {
      const plain = await train(kindling, 'cuda', 2)
      const rounded = await train(kindling, 'cuda', 2, { tf32: true })
      assert(Math.abs(rounded.losses[0] / plain.losses[0] - 1) < 1e-2)
      assert.notEqual(rounded.losses[0], plain.losses[0])
    },
  },
  'a resumed run keeps the algorithms of its products': {
    environment: { FASTEST: '0' },
    run: (kindling) => inFolder((folder) => keepsAlgorithms(kindling, folder)),
  },
  'a pass that repeats is launched as a graph, and its failure is reported': {
    environment: { GRAPH: '1' },
    run: (kindling) =>
      assert.rejects(train(kindling, 'cuda', 3, {}, false), { code: 'ERR_DEVICE' }),
  },
  'graphs do not change the weights': {
    async run(kindling) {
      const launched = await weights((await train(kindling, 'cuda', 20, {}, false)).model)
      process.env.KINDLING_CUDA_GRAPHS = '0'
      const queued = await weights((await train(kindling, 'cuda', 20, {}, false)).model)
      assert.deepEqual(launched, queued)
    },
  },
  'two models of one process have the same bits': {
    environment: { FASTEST: '0' },
    run: sharesAlgorithms,
  },
  'leaving losses and norms unread does not change the weights': {
    async run(kindling) {
      const read = await train(kindling, 'cuda', 20)
      const queued = await train(kindling, 'cuda', 20, {}, false)
      assert.deepEqual(await weights(queued.model), await weights(read.model))
    },
  },
  'weights larger than the staging buffer arrive complete': {
    async run(kindling) {
      const shape = { ...SHAPE, vocabSize: 40_000, device: 'cuda' }
      const model = new kindling.Transformer(shape)
      const other = new kindling.Transformer({ ...shape, device: 'cpu', seed: 6 })
      await model.loadStateDict(await other.stateDict())
      assert.deepEqual(await weights(model), await weights(other))
    },
  },
}

/** Whole training runs; devices differ only in rounding. */
Object.assign(TESTS, {
  'a run that moves between cuda and the CPU has the metrics of one on the CPU': {
    run: (kindling) => inFolder((folder) => moves(kindling, folder)),
  },
  'losses left on the device appear in the metrics': {
    run: (kindling) =>
      inFolder(async (folder) => {
        const settings = { logInterval: 4, maxNorm: 0 }
        const lines = await linesOf(kindling, folder, [{ device: 'cpu' }], settings)
        near(await linesOf(kindling, folder, [{ device: 'auto' }], settings), lines)
        assert.equal(lines.length, 3)
      }),
  },
  'the tests that run on every device pass on both': {
    command: ['node_modules/ava/entrypoints/cli.mjs', '__test__/devices.spec.ts'],
    failsIf: /skipped/,
  },
  'a loss that becomes infinite on the device ends the run with a code': {
    run: (kindling) =>
      inFolder((folder) =>
        assert.rejects(
          linesOf(kindling, folder, [{ device: 'cuda' }], { lr: 1e38, warmupRatio: 0 }),
          {
            code: 'ERR_NON_FINITE',
          },
        ),
      ),
  },
})

async function moves(kindling, folder) {
  const whole = await linesOf(kindling, folder, [{ device: 'cpu' }])
  const parts = [
    { device: 'cuda', stopAtStep: 3 },
    { device: 'cpu', stopAtStep: 7 },
    { device: 'cuda:0', peakTflops: 1 },
  ]
  const moved = await linesOf(kindling, folder, parts)
  near(moved, whole)
  assert(moved.at(-1).mfu > 0 && whole.at(-1).mfu === undefined)
}

/** Trains a run in parts, each resuming the one before, and returns its lines of metrics. */
async function linesOf(kindling, folder, parts, more = {}, say = () => {}) {
  const data = path.join(folder, 'tokens')
  fs.mkdirSync(data, { recursive: true })
  const ids = Int32Array.from({ length: 3000 }, (_, i) => (i * i + 3 * i) % SHAPE.vocabSize)
  fs.writeFileSync(path.join(data, 'encoded_tokens_chunk_0.dat'), ids)
  const run = fs.mkdtempSync(path.join(folder, 'runs-')) + '/run'
  const { vocabSize, dModel, numHeads, dFf, numLayers, maxSeqLength } = SHAPE
  const sizes = {
    vocabSize,
    dModel,
    numHeads,
    dFf,
    numLayers,
    maxSeqLength,
    seqLength: 16,
    batchSize: 2,
  }
  const plan = { data, maxSteps: 10, accumulate: 2, lr: 3e-3, logInterval: 2, ...more }
  const lines = []
  for (const [index, part] of parts.entries()) {
    const own = index === 0 ? { ...sizes, ...plan } : { resume: true }
    const trainer = new kindling.Trainer({ ...own, ...part, run })
    trainer.on('metrics', (line) => lines.push(line))
    trainer.on('message', say)
    await trainer.run()
  }
  return lines
}

function near(lines, expected) {
  assert.deepEqual(
    lines.map(({ step }) => step),
    expected.map(({ step }) => step),
  )
  for (const [i, { step, loss, gradNorm }] of lines.entries()) {
    assert(
      Math.abs(loss / expected[i].loss - 1) < 1e-4,
      `step ${step}: ${loss} and ${expected[i].loss}`,
    )
    assert(Math.abs(gradNorm / expected[i].gradNorm - 1) < 1e-3, `step ${step}: norm ${gradNorm}`)
  }
}

async function inFolder(work) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-runs-'))
  try {
    await work(folder)
  } finally {
    fs.rmSync(folder, { recursive: true })
  }
}

/** Asserts that a run on `auto` trains on the CPU and says why in one line. */
async function fallsBack(kindling, message) {
  await inFolder(async (folder) => {
    const said = []
    const lines = await linesOf(kindling, folder, [{ device: 'auto' }], {}, (text) =>
      said.push(text),
    )
    assert.equal(lines.length, 5)
    assert.equal(
      said.filter((text) => message.test(text) && !text.includes('\n')).length,
      1,
      said.join('\n'),
    )
  })
}

function batch(step) {
  const at = (i) => (i * 31 + step * 17 + ((i * i) % 7)) % SHAPE.vocabSize
  const x = Int32Array.from({ length: 48 }, (_, i) => at(i))
  const y = Int32Array.from({ length: 48 }, (_, i) => (i % 11 === 5 ? -100 : at(i + 1)))
  return { x, y, batchSize: 2 }
}

/** Trains for some steps; with `read`, waits for each loss and norm. */
async function train(kindling, device, steps, options = {}, read = true) {
  const model = new kindling.Transformer({ ...SHAPE, device, ...options })
  const optimizer = new kindling.AdamW(model, { lr: 3e-3 })
  const losses = []
  for (let step = 0; step < steps; step++) {
    // Two batches per step; their gradients add up.
    for (const half of [0, 1]) {
      const { loss } = await model.forwardBackward(batch(2 * step + half), {
        readLoss: read,
        scale: 0.5,
      })
      losses.push(loss)
    }
    await optimizer.clipGradNorm(1, { read })
    await optimizer.step()
  }
  return { model, optimizer, losses }
}

async function weights(model) {
  const tensors = await model.stateDict()
  return Object.fromEntries(Object.entries(tensors).map(([name, { data }]) => [name, [...data]]))
}

async function refused(kindling, code, message, device = 'cuda') {
  await assert.rejects(
    async () => {
      const model = new kindling.Transformer({ ...SHAPE, device })
      await model.loss(batch(0))
    },
    (error) => {
      assert.equal(error.code, code, error.message)
      assert.match(error.message, message)
      assert(!error.message.includes('\n'), 'one line')
      return true
    },
  )
}

/**
 * Asserts that losses and logits follow the CPU's, and that checkpoints move between the devices
 * unchanged.
 */
async function follows(kindling, options, tolerance) {
  const cpu = await train(kindling, 'cpu', 12)
  const cuda = await train(kindling, 'cuda', 12, options)
  for (const [step, loss] of cuda.losses.entries()) {
    assert(
      Math.abs(loss / cpu.losses[step] - 1) < tolerance,
      `step ${step}: ${loss} and ${cpu.losses[step]}`,
    )
  }
  assert(cuda.losses[22] < cuda.losses[0])
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-cuda-'))
  try {
    await kindling.Checkpoint.save(path.join(folder, 'a'), cuda.model, cuda.optimizer, 12)
    assert.equal(
      await kindling.Checkpoint.load(path.join(folder, 'a'), cpu.model, cpu.optimizer),
      12,
    )
    await kindling.Checkpoint.save(path.join(folder, 'b'), cpu.model, cpu.optimizer, 12)
    for (const file of ['model.safetensors', 'optimizer.safetensors']) {
      const [a, b] = ['a', 'b'].map((name) => fs.readFileSync(path.join(folder, name, file)))
      assert(a.equals(b), `${file} changed when it moved`)
    }
  } finally {
    fs.rmSync(folder, { recursive: true })
  }
  const ids = Uint32Array.from({ length: 9 }, (_, i) => (i * 7) % SHAPE.vocabSize)
  const [logits, expected] = [await cuda.model.logits(ids), await cpu.model.logits(ids)]
  const largest = Math.max(...expected.map(Math.abs))
  logits.forEach((value, i) => assert(Math.abs(value - expected[i]) < 5 * tolerance * largest))
}

/** Makes three updates and returns the weights. */
async function threeSteps({ model, optimizer }) {
  for (let step = 0; step < 3; step++) {
    await model.forwardBackward(batch(step))
    await optimizer.step()
  }
  return weights(model)
}

async function loaded(kindling, saved) {
  const model = new kindling.Transformer({ ...SHAPE, device: 'cuda' })
  const optimizer = new kindling.AdamW(model, { lr: 3e-3 })
  await kindling.Checkpoint.load(saved, model, optimizer)
  return { model, optimizer }
}

/**
 * Asserts that a run resumed by another process, where another algorithm is faster, has the bits of
 * one that was never interrupted, thanks to the file beside its weights.
 */
async function keepsAlgorithms(kindling, folder) {
  const whole = await train(kindling, 'cuda', 2)
  const saved = path.join(folder, 'saved')
  await kindling.Checkpoint.save(saved, whole.model, whole.optimizer, 2)
  const expected = JSON.stringify(await threeSteps(whole))
  const elsewhere = (...args) =>
    execFileSync(process.execPath, [__filename, '--steps', ...args], {
      encoding: 'utf8',
      env: { ...process.env, EMULATED_CUDA_FASTEST: '1' },
    }).trim()
  assert.equal(elsewhere(saved), expected)
  assert.notEqual(elsewhere(), expected)
}

/** Asserts that models of one process share their algorithms, whatever is faster by then. */
async function sharesAlgorithms(kindling) {
  const first = await weights((await train(kindling, 'cuda', 2)).model)
  process.env.EMULATED_CUDA_FASTEST = '1'
  assert.deepEqual(await weights((await train(kindling, 'cuda', 2)).model), first)
}

/** Creates a folder with the fake libraries of these names. */
function folderOf(libraries, built) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-libcuda-'))
  for (const name of libraries) fs.symlinkSync(built, path.join(folder, name))
  return folder
}

function runInProcess(addon, built, name) {
  const {
    libraries = LIBRARIES,
    environment = {},
    command = [__filename, addon, '--one', name],
    failsIf,
  } = TESTS[name]
  const folder = folderOf(libraries, built)
  const settings = Object.entries(environment).map(([key, value]) => [
    `EMULATED_CUDA_${key}`,
    value,
  ])
  try {
    const result = spawnSync(process.execPath, command, {
      cwd: root,
      encoding: 'utf8',
      env: {
        ...process.env,
        ...Object.fromEntries(settings),
        LD_LIBRARY_PATH: folder,
        NAPI_RS_NATIVE_LIBRARY_PATH: addon,
      },
      timeout: 300_000,
    })
    return failsIf?.test(result.stdout) ? { ...result, status: 1 } : result
  } finally {
    fs.rmSync(folder, { recursive: true })
  }
}

function main() {
  const addon = process.argv[2] && path.resolve(process.argv[2])
  if (process.argv.includes('--has-cuda')) process.exit(addon && fs.existsSync(addon) ? 0 : 1)
  if (!addon || !fs.existsSync(addon))
    throw new Error('usage: node scripts/checks/fake-libcuda.js ADDON.node')
  execFileSync('cargo', ['build', '--release', '--quiet', '-p', 'kindling-fake-libcuda'], {
    cwd: root,
    stdio: 'inherit',
  })
  const target = process.env.CARGO_TARGET_DIR ?? path.join(root, 'target')
  const built = path.join(target, 'release', 'libkindling_fake_libcuda.so')
  let failed = 0
  for (const name of Object.keys(TESTS)) {
    const { status, stdout, stderr } = runInProcess(addon, built, name)
    if (status !== 0) failed += 1
    console.log(
      `${status === 0 ? 'ok    ' : 'FAILED'} ${name}${status === 0 ? '' : `\n${stdout}${stderr}`}`,
    )
  }
  console.log(`${Object.keys(TESTS).length - failed} passed, ${failed} failed`)
  process.exit(failed === 0 ? 0 : 1)
}

module.exports = { TESTS }
/** Runs one test in this process, or the steps of one, or all tests. */
function start() {
  const one = process.argv.indexOf('--one')
  const steps = process.argv.indexOf('--steps')
  if (one < 0 && steps < 0) return main()
  const kindling = require(path.join(root, 'dist'))
  if (one > 0)
    return TESTS[process.argv[one + 1]].run(
      kindling,
      require(path.join(root, 'dist', 'native')).native,
    )
  const saved = process.argv[steps + 1]
  return (saved === undefined ? train(kindling, 'cuda', 2) : loaded(kindling, saved))
    .then(threeSteps)
    .then((result) => console.log(JSON.stringify(result)))
}

module.exports = { TESTS }
if (require.main === module) void start()
