/**
 * Measures what asynchronous saves cost a training of the tinystories shape. Short runs without
 * saves and with one every few steps alternate, and the times of their steps are compared. The cost
 * of a save relative to 50 steps is that of `--save-interval 50`. Run it on an idle machine.
 *
 * Usage: node scripts/campaigns/save-cost.js [--pairs 1] [--steps 10] [--every 3] [--dtype f32]
 */
const { root, text, claim, campaign, option } = require('./claims')
const fs = require('node:fs')
const path = require('node:path')

const INTERVAL = 50
const ALLOWED = 0.03

/** Trains a run; returns the seconds from the first step's end to the last's. */
async function secondsOf(Trainer, options, saveInterval) {
  const trainer = new Trainer({ ...options, saveInterval })
  const times = []
  let saves = 0
  trainer.on('step', () => times.push(performance.now()))
  trainer.on('checkpoint', () => saves++)
  await trainer.run()
  fs.rmSync(options.run, { recursive: true })
  return { seconds: (times.at(-1) - times[0]) / 1000, saves: saves - 1 }
}

campaign(async (folder) => {
  const { Tokenizer, TokenStore, Trainer } = require(path.join(root, 'dist'))
  const [pairs, steps, every] = [
    ['pairs', '1'],
    ['steps', '10'],
    ['every', '3'],
  ].map(([name, otherwise]) => Number(option(name, otherwise)))
  const corpus = path.join(folder, 'corpus.txt')
  fs.writeFileSync(corpus, fs.readFileSync(text, 'utf8').slice(0, 300_000))
  const tokenizer = await Tokenizer.train([corpus], { vocabSize: 512 })
  const data = path.join(folder, 'data')
  await TokenStore.encodeFiles([corpus], tokenizer, data)
  const options = {
    ...{ preset: 'tinystories', data, run: path.join(folder, 'run'), maxSteps: steps },
    ...{ keep: 1, evalInterval: 0, sampleInterval: 0, logInterval: steps, device: 'cpu' },
    dtype: option('dtype', 'f32'),
  }
  const ratios = []
  for (let pair = 1; pair <= pairs; pair++) {
    const without = await secondsOf(Trainer, options, 0)
    const saving = await secondsOf(Trainer, options, every)
    const step = without.seconds / (steps - 1)
    const save = (saving.seconds - without.seconds) / saving.saves
    ratios.push(save / (INTERVAL * step))
    process.stdout.write(
      `pair ${pair}: a step takes ${step.toFixed(2)} s, each of ${saving.saves} saves adds ` +
        `${save.toFixed(2)} s, which is ${(100 * ratios.at(-1)).toFixed(2)}% of ${INTERVAL} steps\n`,
    )
  }
  const median = ratios.sort((a, b) => a - b)[Math.floor(ratios.length / 2)]
  claim(
    `saves at --save-interval ${INTERVAL} cost less than ${100 * ALLOWED}%`,
    median < ALLOWED,
    `median ${(100 * median).toFixed(2)}%`,
  )
})
