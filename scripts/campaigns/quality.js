/**
 * Checks the validation loss of a small character model after 2,000 steps of nanoGPT's recipe for
 * the CPU: tinyshakespeare split 90/10, loss over the whole validation split, mean of three seeds.
 * PyTorch reaches 1.660 with the same model.
 *
 * Usage: node scripts/campaigns/quality.js tinyshakespeare.txt [--seeds 0,1,2] [--steps 2000]
 *   [--dtype f32] [--at-most 1.665]
 */
const { claim, campaign, kindlingJson, option } = require('./claims')
const path = require('node:path')

const RECIPE =
  '--preset char --lr 1e-3 --lr-min 1e-4 --warmup-ratio 0.05 --warmfix-ratio 1 --betas 0.9 0.99 ' +
  '--weight-decay 0.1 --decay matrices --max-norm 1 --theta 10000 --sample-interval 0 --device cpu'

campaign((folder) => {
  const corpus = process.argv[2]
  if (!corpus)
    throw new Error('pass the path of tinyshakespeare.txt (1.1 MB, from the char-rnn repository)')
  const steps = option('steps', '2000')
  const atMost = Number(option('at-most', '1.665'))
  const tokenizer = path.join(folder, 'characters')
  const data = path.join(folder, 'data')
  kindlingJson('tokenizer', 'train', corpus, '--type', 'chars', '--out', tokenizer)
  kindlingJson('encode', corpus, '--tokenizer', tokenizer, '--out', data, '--valid-fraction', '0.1')
  const losses = option('seeds', '0,1,2')
    .split(',')
    .map((seed) => {
      const run = path.join(folder, `seed-${seed}`)
      const started = Date.now()
      kindlingJson(
        'train',
        '--data',
        data,
        '--run',
        run,
        '--seed',
        seed,
        '--max-steps',
        steps,
        '--dtype',
        option('dtype', 'f32'),
        ...RECIPE.split(' '),
      )
      const { loss, tokens } = kindlingJson('eval', '--run', run)
      const seconds = ((Date.now() - started) / 1000).toFixed(0)
      process.stdout.write(
        `seed ${seed}: loss ${loss.toFixed(4)} over ${tokens} tokens, ${seconds} s\n`,
      )
      return loss
    })
  const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length
  claim(
    `the mean validation loss after ${steps} steps is at most ${atMost}`,
    mean <= atMost,
    mean.toFixed(4),
  )
})
