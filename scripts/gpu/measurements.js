/** The stages of `gpu-check run` that measure single kernels and products; see stages.js. */
const fs = require('node:fs')
const path = require('node:path')
const { presetArgs } = require('./presets')
const { EMULATED, kindling, lastLines, python } = require('./shell')

/** Share of the device's copy bandwidth that the update must reach. */
const GOAL = 0.85

function gemm(context, check) {
  const preset = context.tiny ? ['char'] : ['gpt2-small-bench', '--batch', '32']
  for (const dtype of context.tiny ? ['bf16'] : ['bf16', 'f32']) {
    const counts = ['--steps', context.tiny ? '1' : '30', '--warmup', context.tiny ? '0' : '5']
    const device = ['--device', 'cuda', '--dtype', dtype]
    const args = ['bench', 'gemm', '--preset', ...preset, ...device, ...counts, '--json']
    const done = kindling(context, args)
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
  const done = kindling(context, ['bench', 'train', ...presetArgs(preset, batch), ...counts])
  const line = done.lines.at(-1)
  const step = line?.profile?.find(({ op }) => op === 'adamw::step')
  if (!step) return check('the profile shows the update', false, lastLines(done.output, 5))
  const rate = (line.params * UPDATE_BYTES) / (step.ms_per_step / 1000) / 1e12
  const copy = copyRate(context)
  if (!copy)
    return check(
      'AdamW beside a plain copy',
      'skipped',
      `${rate.toFixed(2)} TB/s; the copy was not measured`,
    )
  const detail = `${rate.toFixed(2)} TB/s of ${copy.toFixed(2)} TB/s that a copy moves here`
  check(
    `AdamW at ${GOAL} of memory bandwidth`,
    context.tiny ? 'skipped' : rate / copy >= GOAL,
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

/** No section of kernels.py starts later than this, and none takes longer than SECTION_SECONDS. */
const KERNELS_SECONDS = 150
const SECTION_SECONDS = 90

function kernels(context, check) {
  const out = path.resolve(context.out, 'kernels.json')
  fs.mkdirSync(context.out, { recursive: true })
  fs.rmSync(out, { force: true })
  const args = [path.join(context.root, 'scripts/gpu/kernels.py'), '--out', out]
  args.push('--seconds', String(KERNELS_SECONDS))
  if (context.emulated) args.push('--emulated', path.join(context.work, EMULATED))
  else if (context.device === 'cpu') return check('kernels by themselves', 'skipped', 'no device')
  const done = python(context, args, { seconds: KERNELS_SECONDS + SECTION_SECONDS })
  if (/nvcc was not found/.test(done.output))
    return check('kernels by themselves', 'skipped', 'nvcc was not found')
  const found = fs.existsSync(out) ? JSON.parse(fs.readFileSync(out, 'utf8')) : { rows: [] }
  const wrong = found.rows.filter(
    (row) => row.failed || row.correct === false || row.same_bits === false,
  )
  check(
    'every kernel matches f64 and repeats its bits',
    done.ok && found.rows.length > 0 && wrong.length === 0,
    wrong.length > 0
      ? wrong.map((row) => `${row.op}: ${row.failed ?? 'wrong'}`).join('\n')
      : done.ok
        ? ''
        : lastLines(done.output, 12),
    found.rows.map(figures),
  )
}

/** A row of kernels.py for the table of the report; kernels.json beside it has every figure. */
function figures(row) {
  const { op, variant, shape, us, tflop_per_s, gb_per_s, error, failed } = row
  const round = (value, digits) => (value === undefined ? '' : Number(value.toFixed(digits)))
  const times = (of) =>
    Object.entries(of ?? {})
      .map(([name, time]) => `${name} ${typeof time === 'number' ? time.toFixed(1) : time}`)
      .join(', ')
  return {
    op: `${op} ${variant ?? ''}`.trim(),
    shape,
    us: round(us, 1),
    launches_us: times(row.launches_us),
    torch_us: times(row.torch_us),
    tflop_per_s: round(tflop_per_s, 0),
    gb_per_s: round(gb_per_s, 0),
    error: error === undefined ? '' : Number(error).toExponential(1),
    failed,
  }
}

module.exports = { KERNELS_SECONDS, SECTION_SECONDS, adamw, gemm, kernels }
