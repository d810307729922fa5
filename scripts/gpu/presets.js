/** What `gpu-check run` measures beside PyTorch, and with which limits in seconds. */

/**
 * `ours` and `torch` limit one run of a benchmark, `autotune` one of PyTorch with `max-autotune`. A
 * profile is one more run of ours.
 */
const MEASURED = [
  {
    name: 'gpt2',
    preset: 'gpt2-small-bench',
    batch: 32,
    steps: 20,
    profile: true,
    limits: { ours: 50, torch: 150, autotune: 400 },
  },
  {
    name: 'seed',
    preset: 'seed',
    batch: 48,
    steps: 20,
    limits: { ours: 35, torch: 90, autotune: 300 },
  },
  {
    name: 'char-gpu',
    preset: 'char-gpu',
    batch: 64,
    steps: 100,
    limits: { ours: 35, torch: 90, autotune: 300 },
  },
]
/** Replaces all of them in a run that only shows that everything works. */
const TINY = { ...MEASURED[0], preset: 'char', batch: 1, steps: 1 }

/** Modes of torch.compile, in the order in which they run. */
const MODES = { bench: ['default', 'reduce-overhead'], autotune: ['max-autotune'] }

/** Limit of a mode of PyTorch. */
const torchLimit = ({ limits }, mode) => (mode === 'max-autotune' ? limits.autotune : limits.torch)

/** Longest time of a comparison: ours before the first mode and after each, and our profile. */
function longest(measured, modes) {
  const runs = modes.length + 1 + (measured.profile && modes === MODES.bench ? 1 : 0)
  const torch = modes.reduce((sum, mode) => sum + torchLimit(measured, mode), 0)
  return runs * measured.limits.ours + torch
}

/** Arguments of `kindling bench train` for a preset on the device. */
function presetArgs(preset, batch) {
  const device = ['--device', 'cuda', '--dtype', 'bf16']
  return ['--preset', preset, ...device, '--batch', String(batch), '--json']
}

module.exports = { MEASURED, MODES, TINY, longest, presetArgs, torchLimit }
