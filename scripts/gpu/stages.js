/**
 * The stages of `gpu-check run`, each with a claim to check and a limit in seconds. A stage's `run`
 * calls `check(claim, state, detail, figures)`; state is true, false or 'skipped'. Figures are
 * measurements of this machine, not claims.
 */
const { autotune, bench } = require('./beside-pytorch')
const correctness = require('./correctness')
const measurements = require('./measurements')
const { MEASURED, MODES, longest } = require('./presets')

const { facts, ops, engine, gradients, training, device, sanitizer, account } = correctness
const { KERNELS_SECONDS, SECTION_SECONDS, adamw, gemm, kernels } = measurements

/** One stage for each preset. */
function stagesOf(kind, title, run) {
  return MEASURED.map((measured) => ({
    name: `${kind}-${measured.name}`,
    title: `${measured.preset} ${title}`,
    seconds: longest(measured, MODES[kind]),
    run: (context, check) => run(context, check, measured),
  }))
}

/** In the order of a run without names. docs/gpu-check.md names those of each ten-minute call. */
const STAGES = [
  { name: 'facts', title: 'The machine', seconds: 60, run: facts },
  { name: 'ops', title: 'Kernels against the references', seconds: 120, run: ops },
  { name: 'engine', title: 'The engine over the device', seconds: 120, run: engine },
  { name: 'gradients', title: 'Gradients of whole models', seconds: 120, run: gradients },
  { name: 'gemm', title: 'Matrix products', seconds: 60, run: gemm },
  { name: 'adamw', title: 'The update', seconds: 60, run: adamw },
  ...stagesOf('bench', 'beside PyTorch', bench),
  {
    name: 'kernels',
    title: 'Kernels by themselves, beside PyTorch',
    seconds: KERNELS_SECONDS + SECTION_SECONDS,
    run: kernels,
  },
  { name: 'training', title: 'Losses of a training', seconds: 120, run: training },
  { name: 'device', title: 'Checkpoints, settings and full memory', seconds: 90, run: device },
  { name: 'account', title: 'Memory as accounted', seconds: 90, run: account },
  { name: 'sanitizer', title: 'compute-sanitizer', seconds: 560, run: sanitizer },
  ...stagesOf('autotune', 'beside PyTorch, autotuned', autotune),
]

module.exports = { STAGES }
