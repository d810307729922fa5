/** The stages of `gpu-check run` that check results; see stages.js. */
const fs = require('node:fs')
const path = require('node:path')
const { MEASURED, TINY, presetArgs } = require('./presets')
const { kindling, lastLines, python, sh } = require('./shell')

const TESTS = ['layers', 'attention', 'loss', 'parameters']
/** Largest relative difference of gradients and losses from the CPU's f32. */
const TOLERANCE = {
  f32: { gradients: 2e-4, losses: 1e-3 },
  bf16: { gradients: 6e-2, losses: 3e-2 },
}

/** Finds cuBLASLt of CUDA 13 among Python's packages; a PyTorch for CUDA 12 brings the wrong one. */
function cublas(context, check) {
  if (context.emulated) return
  const folders = (context.environment.KINDLING_CUDA_LIBRARIES ?? '').split(':').filter(Boolean)
  const found = (name) => folders.filter((folder) => fs.existsSync(path.join(folder, name)))
  const needed = ['libcublasLt.so.13']
  const missing = needed.filter((name) => found(name).length === 0)
  const old =
    found('libcublasLt.so.12').length > 0
      ? ' (found that of CUDA 12; install PyTorch for CUDA 13)'
      : ''
  const detail = missing.length === 0 ? folders.join(':') : `missing: ${missing.join(', ')}${old}`
  // The system's loader may still find those of a toolkit; the next check tells.
  check("cuBLASLt 13 among Python's packages", missing.length === 0 ? true : 'skipped', detail)
}

function facts(context, check) {
  const commands = {
    'nvidia-smi': [
      '--query-gpu=name,driver_version,memory.total,compute_cap,clocks.sm,clocks.max.sm',
      '--format=csv',
    ],
    nvcc: ['--version'],
    'compute-sanitizer': ['--version'],
    ldd: ['--version'],
  }
  for (const [command, args] of Object.entries(commands)) {
    const { ok, skipped, output } = sh(context, command, args, { seconds: 20 })
    check(command, skipped || !ok ? 'skipped' : true, lastLines(output, 4))
  }
  const torch = python(context, [
    '-c',
    'import torch; print(torch.__version__, torch.cuda.is_available())',
  ])
  check('PyTorch', torch.ok ? true : 'skipped', lastLines(torch.stdout || torch.output, 1))
  cublas(context, check)
  const program = `
    const kindling = require('${context.root}/dist')
    const model = new kindling.Transformer({ vocabSize: 7, dModel: 8, numHeads: 1, dFf: 8, numLayers: 1, maxSeqLength: 4, device: 'cuda' })
    model.loss({ x: Int32Array.of(1, 2), y: Int32Array.of(2, 3), batchSize: 1 }).then(console.log)`
  const { ok, output } = sh(context, process.execPath, ['-e', program])
  check('the addon opens the device', ok, ok ? '' : lastLines(output, 8))
}

/** Makes an error name the launch that failed, rather than the call that noticed. */
const WAITING = { KINDLING_CUDA_SYNC: '1' }

/** Runs a test binary on the GPU. */
function testsOf(
  context,
  check,
  name,
  args = [],
  { wrapper = [], seconds = 200, environment } = {},
) {
  const binary = path.join(context.work, `test-${name}`)
  const [command, ...rest] = [...wrapper, binary, '--test-threads=1', ...args]
  const done = sh(context, command, rest, {
    environment: { KINDLING_TEST_DEVICE: 'cuda', ...environment },
    seconds,
  })
  const closing = /^test result:.*$/m.exec(done.output)?.[0] ?? ''
  const claim = `${[...wrapper.slice(0, 3), name].join(' ')} ${args.filter((arg) => !arg.startsWith('-')).join(' ')}`
  check(
    claim.trim(),
    done.skipped ? 'skipped' : done.ok && /[1-9]\d* passed/.test(closing),
    done.ok ? closing : lastLines(done.output, 40),
  )
}

function ops(context, check) {
  for (const name of TESTS)
    testsOf(context, check, name, context.tiny ? ['softmax', 'silu', 'bias', 'decoding'] : [], {
      environment: WAITING,
    })
}

function engine(context, check) {
  const names = context.tiny ? ['weights_and_moments'] : []
  testsOf(context, check, 'model', names, { environment: WAITING })
}

function compared(context, check, what, models, steps, environment = {}) {
  for (const name of models) {
    for (const dtype of ['f32', 'bf16']) {
      const args = [path.join(__dirname, 'compare.js'), what, name, dtype, String(steps)]
      const done = sh(context, process.execPath, args, { seconds: 200, environment })
      const result = done.ok ? JSON.parse(lastLines(done.stdout, 1)) : undefined
      const tolerance = TOLERANCE[dtype][what === 'gradients' ? 'gradients' : 'losses']
      const detail = result ? JSON.stringify(result) : lastLines(done.output, 20)
      check(
        `${what} of ${name} in ${dtype} match the CPU's within ${tolerance}`,
        result?.error < tolerance,
        detail,
      )
    }
  }
}

function gradients(context, check) {
  compared(
    context,
    check,
    'gradients',
    context.tiny ? ['odd'] : ['odd', 'grouped', 'char', 'wide', 'gpt'],
    1,
    WAITING,
  )
}

function training(context, check) {
  compared(
    context,
    check,
    'training',
    context.tiny ? ['odd'] : ['char', 'grouped'],
    context.tiny ? 10 : 100,
  )
}

/** Checks of scripts/checks/fake-libcuda.js that apply to any device. */
const OF_ANY_DEVICE = [
  'a device that does not exist is reported',
  'f32 training matches the CPU, and its checkpoint continues there',
  'bf16 training matches the CPU up to rounding, and its checkpoint continues there',
  'f32 products use TF32 only if requested',
  'leaving losses and norms unread does not change the weights',
  'weights larger than the staging buffer arrive complete',
]

function device(context, check) {
  const script = path.join(context.root, 'scripts', 'checks', 'fake-libcuda.js')
  for (const name of context.tiny ? OF_ANY_DEVICE.slice(0, 3) : OF_ANY_DEVICE) {
    const done = sh(context, process.execPath, [
      script,
      context.environment.NAPI_RS_NATIVE_LIBRARY_PATH,
      '--one',
      name,
    ])
    check(name, done.ok, done.ok ? '' : lastLines(done.output, 12))
  }
  const batch = context.tiny ? '4000' : '20000'
  const full = kindling(context, [
    'bench',
    'train',
    ...presetArgs('gpt2-small-bench', batch),
    '--steps',
    '1',
  ])
  const coded = !full.ok && full.output.includes('ERR_OUT_OF_MEMORY') && /lower/.test(full.output)
  check(
    'running out of device memory is ERR_OUT_OF_MEMORY and says what to lower',
    coded,
    lastLines(full.output, 3),
  )
}

function account(context, check) {
  for (const { preset, batch } of context.tiny ? [TINY] : MEASURED) {
    const predicted = kindling(context, [
      'account',
      '--preset',
      preset,
      '--batch-size',
      String(batch),
      '--device',
      'cuda',
      '--dtype',
      'bf16',
      '--json',
    ])
    const done = kindling(context, [
      'bench',
      'train',
      ...presetArgs(preset, batch),
      '--steps',
      '2',
      '--warmup',
      '1',
    ])
    const peak = done.lines.at(-1)?.peak_device_mib
    const bytes = predicted.lines.at(-1)?.memory?.total
    const claim = `account predicts the peak of ${preset}, batch ${batch}, within 10%`
    if (!bytes) check(claim, 'skipped', `account has no figure for CUDA; the peak was ${peak} MiB`)
    else
      check(
        claim,
        Math.abs(bytes / 2 ** 20 / peak - 1) < 0.1,
        `${(bytes / 2 ** 20).toFixed(0)} and ${peak} MiB`,
      )
  }
}

const TOOLS = ['memcheck', 'racecheck', 'synccheck']

function sanitizer(context, check) {
  // Each tool gets an equal share of the remaining time, so that a slow one cannot starve the
  // others.
  TOOLS.forEach((tool, index) => {
    const end = context.secondsLeft() * (1 - 1 / (TOOLS.length - index))
    const left = () => Math.max(1, context.secondsLeft() - end)
    const wrapper = [
      'compute-sanitizer',
      '--tool',
      tool,
      '--error-exitcode',
      '9',
      '--print-limit',
      '20',
    ]
    testsOf(context, check, 'model', ['losses_and_gradients'], { wrapper, seconds: left() })
    for (const name of context.tiny ? ['parameters'] : TESTS) {
      testsOf(context, check, name, context.tiny ? ['casts'] : [], { wrapper, seconds: left() })
    }
  })
}

module.exports = {
  OF_ANY_DEVICE,
  account,
  device,
  engine,
  facts,
  gradients,
  ops,
  sanitizer,
  training,
}
