/**
 * The stages of `gpu-check run`, each with a claim to check and a limit in seconds. A stage's `run`
 * calls `check(claim, state, detail, figures)`; state is true, false or 'skipped'. Figures are
 * measurements of this machine, not claims.
 */
const fs = require('node:fs')
const path = require('node:path')
const { kindling, lastLines, python, sh } = require('./shell')

const TESTS = ['layers', 'attention', 'loss', 'parameters']
/** Largest relative difference of gradients and losses from the CPU's f32. */
const TOLERANCE = {
  f32: { gradients: 2e-4, losses: 1e-3 },
  bf16: { gradients: 6e-2, losses: 3e-2 },
}
/** Presets measured beside PyTorch, with their batch sizes. */
const MEASURED = [
  ['gpt2-small-bench', 32],
  ['seed', 48],
  ['char-gpu', 64],
]
const GOALS = { ratio: 1, memory: 0.8, mfu: 0.45, bandwidth: 0.85 }

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

/** Runs a test binary over the GPU. */
function testsOf(context, check, name, args = [], wrapper = [], seconds = 200) {
  const binary = path.join(context.work, `test-${name}`)
  const [command, ...rest] = [...wrapper, binary, '--test-threads=1', ...args]
  const done = sh(context, command, rest, {
    environment: { KINDLING_TEST_DEVICE: 'cuda' },
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
    testsOf(context, check, name, context.tiny ? ['softmax', 'silu', 'bias', 'decoding'] : [])
}

function engine(context, check) {
  testsOf(context, check, 'model', context.tiny ? ['weights_and_moments'] : [])
}

function compared(context, check, what, models, steps) {
  for (const name of models) {
    for (const dtype of ['f32', 'bf16']) {
      const args = [path.join(__dirname, 'compare.js'), what, name, dtype, String(steps)]
      const done = sh(context, process.execPath, args, { seconds: 200 })
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
    ...presetArgs(context, 'gpt2-small-bench', batch),
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

function presetArgs(context, preset, batch) {
  return [
    '--preset',
    preset,
    '--device',
    'cuda',
    '--dtype',
    'bf16',
    '--batch',
    String(batch),
    '--json',
  ]
}

function account(context, check) {
  for (const [preset, batch] of measured(context)) {
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
      ...presetArgs(context, preset, batch),
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
    testsOf(context, check, 'model', ['losses_and_gradients'], wrapper, left())
    for (const name of context.tiny ? ['parameters'] : TESTS) {
      testsOf(context, check, name, context.tiny ? ['casts'] : [], wrapper, left())
    }
  })
}

function measured(context) {
  return context.tiny ? [['char', 1]] : MEASURED
}

/** Alternates with PyTorch: ours, one mode, ours, the next mode, ours. */
function besidePyTorch(context, check, modes) {
  for (const [preset, batch] of measured(context)) {
    const [steps, warmup] = context.tiny ? ['1', '1'] : [preset === 'char-gpu' ? '100' : '20', '5']
    const counts = ['--steps', steps, '--warmup', warmup]
    const rows = []
    const ours = () => {
      const done = kindling(
        context,
        ['bench', 'train', ...presetArgs(context, preset, batch), ...counts],
        {
          seconds: 90,
        },
      )
      rows.push(rowOf('kindling', done))
    }
    ours()
    for (const mode of modes) {
      const args = [
        path.join(context.root, 'scripts/peers/torch_train.py'),
        '--preset',
        preset,
        '--batch',
        String(batch),
      ]
      args.push('--device', context.device, '--dtype', 'bf16', ...counts)
      if (mode !== 'eager') args.push('--compile', '--compile-mode', mode)
      rows.push(rowOf(`PyTorch ${mode}`, python(context, args, { seconds: 170 })))
      ours()
    }
    judge(context, check, preset, batch, rows)
  }
}

function rowOf(what, { ok, lines, output }) {
  const line = lines.at(-1)
  if (!ok || !line) return { what, failed: lastLines(output, 1).slice(0, 120) }
  const { tokens_per_second, step_ms, peak_device_mib, mfu, loss_first, loss_last } = line
  return { what, tokens_per_second, step_ms, peak_device_mib, mfu, loss_first, loss_last }
}

function judge({ tiny, emulated }, check, preset, batch, rows) {
  const good = (mine) => rows.filter((r) => r.tokens_per_second && (r.what === 'kindling') === mine)
  const speed = (row) => row.tokens_per_second
  const [ours, theirs] = [good(true).sort((a, b) => speed(a) - speed(b)), good(false)]
  const name = `${preset}, batch ${batch}, bf16`
  if (ours.length === 0 || theirs.length === 0) {
    check(
      `${name} beside PyTorch`,
      ours.length === 0 ? false : 'skipped',
      'one side produced no figure',
      rows,
    )
    return
  }
  if (tiny || emulated) {
    check(`${name}: both sides ran (no speed is claimed here)`, true, '', rows)
    return
  }
  const mine = ours[Math.floor(ours.length / 2)]
  const best = theirs.reduce((a, b) => (speed(b) > speed(a) ? b : a))
  const ratio = speed(mine) / speed(best)
  check(
    `${name}: tokens/s at least ${GOALS.ratio} x ${best.what}`,
    ratio >= GOALS.ratio,
    `${ratio.toFixed(3)} x`,
    rows,
  )
  if (mine.peak_device_mib && best.peak_device_mib) {
    const share = mine.peak_device_mib / best.peak_device_mib
    check(
      `${name}: peak device memory at most ${GOALS.memory} x`,
      share <= GOALS.memory,
      `${share.toFixed(3)} x`,
    )
  }
  if (preset === 'gpt2-small-bench')
    check(
      `${name}: MFU at least ${GOALS.mfu}`,
      mine.mfu ? mine.mfu >= GOALS.mfu : 'skipped',
      String(mine.mfu),
    )
}

function bench(context, check) {
  besidePyTorch(
    context,
    check,
    context.device === 'cpu' ? ['eager'] : ['default', 'reduce-overhead'],
  )
}

function autotune(context, check) {
  besidePyTorch(context, check, context.device === 'cpu' ? ['eager'] : ['max-autotune'])
}

function gemm(context, check) {
  const preset = context.tiny ? 'char' : 'gpt2-small-bench'
  for (const dtype of context.tiny ? ['bf16'] : ['bf16', 'f32']) {
    const counts = ['--steps', context.tiny ? '1' : '30', '--warmup', context.tiny ? '0' : '5']
    const done = kindling(context, [
      'bench',
      'gemm',
      '--preset',
      preset,
      '--device',
      'cuda',
      '--dtype',
      dtype,
      ...counts,
      '--json',
    ])
    check(
      `bench gemm in ${dtype}`,
      done.ok && done.lines.length > 0,
      done.ok ? '' : lastLines(done.output, 5),
      done.lines,
    )
  }
}

/**
 * Bytes per parameter that an update moves: weight and two moments read and written, gradient read
 * and cleared, bf16 copy written.
 */
const UPDATE_BYTES = 3 * 8 + 4 + 4 + 2

function adamw(context, check) {
  const [preset, batch] = context.tiny ? ['char', 1] : ['gpt2-small-bench', 4]
  const counts = ['--steps', context.tiny ? '1' : '10', '--warmup', '1', '--profile']
  const done = kindling(context, [
    'bench',
    'train',
    ...presetArgs(context, preset, batch),
    ...counts,
  ])
  const line = done.lines.at(-1)
  const step = line?.profile?.find(({ op }) => op === 'adamw::step')
  if (!step) return check('the profile shows the update', false, lastLines(done.output, 5))
  const rate = (line.params * UPDATE_BYTES) / (step.ms_per_step / 1000) / 1e12
  check('profile of a step (waiting for the device after each op)', true, '', line.profile)
  const copy = copyRate(context)
  if (!copy)
    return check(
      'AdamW beside a plain copy',
      'skipped',
      `${rate.toFixed(2)} TB/s; the copy was not measured`,
    )
  const detail = `${rate.toFixed(2)} TB/s of ${copy.toFixed(2)} TB/s that a copy moves here`
  check(
    `AdamW at ${GOALS.bandwidth} of memory bandwidth`,
    context.tiny ? 'skipped' : rate / copy >= GOALS.bandwidth,
    detail,
  )
}

/** Measures a copy within the device by PyTorch: bytes read and written, in TB/s. */
function copyRate(context) {
  if (context.device === 'cpu') return undefined
  const program = [
    'import json, torch',
    'a = torch.empty(2**30, dtype=torch.float32, device="cuda"); b = torch.empty_like(a)',
    'e = [torch.cuda.Event(enable_timing=True) for _ in range(2)]',
    'b.copy_(a); e[0].record(); [b.copy_(a) for _ in range(10)]; e[1].record(); torch.cuda.synchronize()',
    'print(json.dumps({"rate": 10 * 2**33 / e[0].elapsed_time(e[1]) / 1e9}))',
  ]
  return python(context, ['-c', program.join('\n')]).lines.at(-1)?.rate
}

/**
 * In the order of a run without names. One ten-minute call holds the stages up to `device`, one
 * `sanitizer`, one the rest.
 */
const STAGES = [
  { name: 'facts', title: 'The machine', seconds: 60, run: facts },
  { name: 'ops', title: 'Kernels against the references', seconds: 120, run: ops },
  { name: 'engine', title: 'The engine over the device', seconds: 120, run: engine },
  { name: 'gradients', title: 'Gradients of whole models', seconds: 120, run: gradients },
  { name: 'training', title: 'Losses of a training', seconds: 120, run: training },
  { name: 'device', title: 'Checkpoints, settings and full memory', seconds: 90, run: device },
  { name: 'sanitizer', title: 'compute-sanitizer', seconds: 500, run: sanitizer },
  { name: 'account', title: 'Memory as accounted', seconds: 90, run: account },
  { name: 'gemm', title: 'Matrix products', seconds: 60, run: gemm },
  { name: 'adamw', title: 'The update', seconds: 60, run: adamw },
  { name: 'bench', title: 'Beside PyTorch', seconds: 560, run: bench },
  { name: 'autotune', title: 'Beside PyTorch, autotuned', seconds: 560, run: autotune },
]

module.exports = { STAGES }
