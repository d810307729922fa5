/** The stages of `gpu-check run` that train beside PyTorch; see stages.js. */
const path = require('node:path')
const { MODES, TINY, presetArgs, torchLimit } = require('./presets')
const { kindling, lastLines, python } = require('./shell')

const GOALS = { ratio: 1, memory: 0.8, mfu: 0.45 }

/** Runs a comparison, and profiles a step of ours if that is wanted. */
function bench(context, check, measured) {
  besidePyTorch(context, check, measured, MODES.bench)
  if (measured.profile) profile(context, check, context.tiny ? TINY : measured)
}

function autotune(context, check, measured) {
  besidePyTorch(context, check, measured, MODES.autotune)
}

/** Alternates with PyTorch: ours, one mode, ours, the next mode, ours. */
function besidePyTorch(context, check, wanted, allModes) {
  if (context.tiny && wanted.name !== TINY.name)
    return check(`${wanted.preset} beside PyTorch`, 'skipped', `${TINY.preset} stands for it`)
  const measured = context.tiny ? TINY : wanted
  const modes = context.device === 'cpu' ? ['eager'] : allModes
  const { preset, batch, steps, limits } = measured
  const counts = ['--steps', String(steps), '--warmup', context.tiny ? '1' : '5']
  const rows = []
  const ours = () => {
    const args = ['bench', 'train', ...presetArgs(preset, batch), ...counts]
    rows.push(rowOf('kindling', kindling(context, args, { seconds: limits.ours })))
  }
  ours()
  for (const mode of modes) {
    const script = path.join(context.root, 'scripts/peers/torch_train.py')
    const args = [script, '--preset', preset, '--batch', String(batch)]
    args.push('--device', context.device, '--dtype', 'bf16', ...counts)
    if (mode !== 'eager') args.push('--compile', '--compile-mode', mode)
    const done = python(context, args, { seconds: torchLimit(measured, mode) })
    rows.push(rowOf(`PyTorch ${mode}`, done))
    ours()
  }
  judge(context, check, measured, withMfu(rows))
}

function rowOf(what, { ok, lines, output }) {
  const line = lines.at(-1)
  if (!ok || !line) return { what, failed: lastLines(output, 1).slice(0, 120) }
  const { tokens_per_second, step_ms, peak_device_mib, mfu, sdpa, loss_first, loss_last } = line
  return { what, tokens_per_second, step_ms, peak_device_mib, mfu, sdpa, loss_first, loss_last }
}

const isOurs = ({ what }) => what === 'kindling'

/** Adds PyTorch's MFU by our formula, with the same FLOPs per token and peak. */
function withMfu(rows) {
  const known = rows.find((row) => isOurs(row) && row.mfu)
  if (!known) return rows
  const each = known.mfu / known.tokens_per_second
  return rows.map((row) =>
    isOurs(row) || !row.tokens_per_second
      ? row
      : { ...row, mfu: Number((each * row.tokens_per_second).toFixed(4)) },
  )
}

function judge({ tiny, emulated }, check, { preset, batch }, rows) {
  const good = (mine) => rows.filter((row) => row.tokens_per_second && isOurs(row) === mine)
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

function profile(context, check, { preset, batch, limits }) {
  const counts = ['--steps', '1', '--warmup', context.tiny ? '0' : '3', '--profile']
  const args = ['bench', 'train', ...presetArgs(preset, batch), ...counts]
  const done = kindling(context, args, { seconds: limits.ours })
  const found = done.lines.at(-1)?.profile
  check(
    `profile of a step of ${preset}, batch ${batch} (waiting for the device after each op)`,
    found?.length > 0,
    found ? '' : lastLines(done.output, 5),
    found,
  )
}

module.exports = { autotune, bench, withMfu }
