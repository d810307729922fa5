/**
 * Checks that a run that is stopped and resumed with another number of threads equals an
 * uninterrupted one, byte for byte.
 *
 * Usage: node scripts/campaigns/resume.js [--steps 200]
 */
const { text, claim, campaign, kindlingJson, option } = require('./claims')
const fs = require('node:fs')
const path = require('node:path')

const FLAGS = [
  '--d-model 64 --num-heads 4 --d-ff 176 --num-layers 2',
  '--max-seq-length 64 --seq-length 64 --batch-size 8',
  '--lr 1e-3 --lr-min 1e-4 --log-interval 10 --eval-interval 50 --sample-interval 0',
].flatMap((line) => line.split(' '))

campaign(async (folder) => {
  const steps = Number(option('steps', '200'))
  const data = path.join(folder, 'data')
  kindlingJson(
    'tokenizer',
    'train',
    text,
    '--vocab-size',
    '512',
    '--out',
    path.join(folder, 'tokenizer'),
  )
  const encode = [
    '--tokenizer',
    path.join(folder, 'tokenizer'),
    '--out',
    data,
    '--valid-fraction',
    '0.05',
  ]
  kindlingJson('encode', text, ...encode)
  const whole = path.join(folder, 'whole')
  const parts = path.join(folder, 'parts')
  const train = (run, ...more) => kindlingJson('train', '--data', data, '--run', run, ...more)
  const all = [...FLAGS, '--max-steps', `${steps}`, '--save-interval', `${steps / 2}`]
  train(whole, ...all, '--threads', '2')
  train(parts, ...all, '--threads', '1', '--stop-at-step', `${steps / 2}`)
  const stopped = fs.readFileSync(path.join(parts, 'latest'), 'utf8').trim()
  claim(
    `the first part stops at step ${steps / 2}`,
    stopped.endsWith(`${steps / 2}`.padStart(8, '0')),
    stopped,
  )
  train(parts, '--resume', '--threads', '3', '--stop-at-step', `${steps}`)

  const checkpoint = path.join('checkpoints', `step-${`${steps}`.padStart(8, '0')}`)
  for (const name of ['model.safetensors', 'optimizer.safetensors']) {
    const [a, b] = [whole, parts].map((run) => fs.readFileSync(path.join(run, checkpoint, name)))
    claim(`${name} is identical, byte for byte`, a.equals(b), `${a.length} bytes`)
  }
  const [a, b] = [whole, parts].map(metrics)
  claim(
    'metrics.jsonl is identical, except for the timings',
    JSON.stringify(a) === JSON.stringify(b),
    `${a.length} lines`,
  )
})

/** Returns the lines of metrics.jsonl without timings and memory. */
function metrics(run) {
  const lines = fs.readFileSync(path.join(run, 'metrics.jsonl'), 'utf8').trimEnd().split('\n')
  return lines.map((line) => ({
    ...JSON.parse(line),
    tokens_per_second: undefined,
    elapsed_s: undefined,
    memory_mib: undefined,
  }))
}
