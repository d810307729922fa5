/**
 * Trains many runs at once in one process and aborts them at random moments: while they prepare,
 * step, evaluate and save. Resumes each until it is done, and checks that all end with the weights
 * of a run that was not aborted, that no lock is left, and that memory does not grow.
 *
 * Usage: node scripts/campaigns/many-trainings.js [--runs 24] [--aborts 200] [--seed 1]
 */
const { root, text, claim, campaign, option } = require('./claims')
const { ALLOWED_MIB, growth, settledMib, underSteadyMemory } = require('./steady-memory')
const fs = require('node:fs')
const path = require('node:path')

const STEPS = 30
const OPTIONS = {
  ...{ dModel: 32, numHeads: 4, dFf: 64, numLayers: 1, vocabSize: 300, maxSeqLength: 16 },
  ...{ seqLength: 16, batchSize: 4, accumulate: 2, lr: 1e-3, threads: 1, device: 'cpu' },
  ...{ maxSteps: STEPS, logInterval: 5, saveInterval: 2, keep: 2, evalInterval: 10 },
  ...{ evalTokens: 512, sampleInterval: 15 },
}

/** Rounds of a span between two measurements of memory. */
const ROUNDS = 6
/** Maximum number of spans after the first. */
const ATTEMPTS = 8

let state = Number(option('seed', '1'))
/** Returns a number in [0, 1) (a linear congruential generator). */
function draw() {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 2 ** 32
}

function weights(run) {
  const last = path.join(run, 'checkpoints', `step-${String(STEPS).padStart(8, '0')}`)
  return ['model.safetensors', 'optimizer.safetensors']
    .map((name) => fs.readFileSync(path.join(last, name)).toString('base64'))
    .join()
}

/**
 * Trains one run to its end. `mayAbort` returns after how many milliseconds an attempt is aborted;
 * null: never.
 */
async function train(Trainer, run, data, mayAbort) {
  for (;;) {
    const started = fs.existsSync(path.join(run, 'config.json'))
    const trainer = new Trainer(started ? { run, resume: true } : { ...OPTIONS, data, run })
    const controller = new AbortController()
    const after = mayAbort()
    const timer = after === null ? null : setTimeout(() => controller.abort(), after)
    try {
      const { interrupted } = await trainer.run({ signal: controller.signal })
      if (!interrupted) return
    } catch (error) {
      if (error.code !== 'ERR_CANCELLED') throw error
    } finally {
      clearTimeout(timer)
    }
  }
}

async function main(folder) {
  const { TokenStore, Tokenizer, Trainer } = require(path.join(root, 'dist'))
  const runs = Number(option('runs', '24'))
  const wanted = Number(option('aborts', '200'))
  const corpus = path.join(folder, 'corpus.txt')
  fs.writeFileSync(corpus, fs.readFileSync(text, 'utf8').slice(0, 200_000))
  const tokenizer = await Tokenizer.train([corpus], { vocabSize: OPTIONS.vocabSize })
  const data = path.join(folder, 'data')
  await TokenStore.encodeFiles([corpus], tokenizer, data, { validFraction: 0.1 })
  const whole = path.join(folder, 'whole')
  await train(Trainer, whole, data, () => null)
  const expected = weights(whole)

  let aborts = 0
  const wrong = []
  /** Trains all runs at once, with up to `most` aborts; returns what they took in milliseconds. */
  const round = async (number, most, usual) => {
    const begun = performance.now()
    let left = most
    const mayAbort = () => {
      if (left === 0) return null
      left -= 1
      aborts += 1
      return draw() * usual
    }
    const names = Array.from({ length: runs }, (_, i) => path.join(folder, `run-${number}-${i}`))
    await Promise.all(names.map((run) => train(Trainer, run, data, mayAbort)))
    for (const run of names) {
      if (weights(run) !== expected) wrong.push(`${path.basename(run)} has other weights`)
      if (fs.existsSync(path.join(run, 'lock'))) wrong.push(`${path.basename(run)} is locked`)
      fs.rmSync(run, { recursive: true })
    }
    return performance.now() - begun
  }
  const usual = await round(0, 0, 0)
  const perRound = Math.ceil(wanted / ROUNDS)
  let number = 0
  /** Aborts as often as wanted; returns the lowest memory in MiB after a round. */
  const span = async () => {
    let lowest = Infinity
    for (let left = wanted; left > 0;) {
      const before = aborts
      await round(++number, Math.min(perRound, left), usual)
      left -= aborts - before
      lowest = Math.min(lowest, await settledMib())
    }
    return lowest
  }
  const { grown, memory } = await growth(await span(), span, ATTEMPTS)
  claim(
    `${runs} trainings at once, aborted ${aborts} times, end with the weights of one that was not`,
    wrong.length === 0,
    wrong.join('; ') || `${number} rounds`,
  )
  const series = memory.map((mib) => mib.toFixed(1)).join(' ')
  claim(
    `${wanted} aborts leave no memory`,
    grown < ALLOWED_MIB,
    `${grown.toFixed(2)} MiB: ${series}`,
  )
}

underSteadyMemory(() => campaign(main))
