/**
 * Checks that TensorBoard itself reads what `kindling train --log tensorboard` writes: the numbers
 * in metrics.jsonl, even of a run that was resumed from an earlier checkpoint.
 *
 * Usage: node scripts/checks/tensorboard.js [--has-tensorboard]
 * KINDLING_PYTHON names a Python that has tensorboard (default: python3); --has-tensorboard only
 * tells whether it has.
 */
const { execFileSync, spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const python = process.env.KINDLING_PYTHON ?? 'python3'
const cli = path.join(__dirname, '..', '..', 'dist', 'cli', 'index.js')

if (process.argv.includes('--has-tensorboard')) {
  process.exit(spawnSync(python, ['-c', 'import tensorboard']).status ?? 1)
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-tensorboard-'))
const run = path.join(folder, 'run')
const kindling = (...args) => execFileSync(process.execPath, [cli, ...args], { stdio: 'ignore' })

/** Trains 6 steps, then again from step 2, so that two files have the steps 4 and 6. */
function train() {
  const corpus = path.join(folder, 'corpus.txt')
  fs.writeFileSync(corpus, 'Call me Ishmael. Some years ago, never mind how long. '.repeat(400))
  const sizes = '--vocab-size 280 --d-model 16 --num-heads 2 --d-ff 24 --num-layers 1'
  const steps = '--max-seq-length 16 --seq-length 16 --batch-size 4 --max-steps 8 --stop-at-step 6'
  const intervals = '--log-interval 2 --save-interval 2 --eval-interval 4 --sample-interval 4'
  const flags = `${sizes} ${steps} ${intervals} --threads 1 --log tensorboard`.split(' ')
  kindling('train', '--corpus', corpus, '--data-dir', folder, '--run', run, ...flags)
  kindling('train', '--checkpoint', path.join(run, 'checkpoints', 'step-00000002'))
}

function compare(read) {
  const lines = fs.readFileSync(path.join(run, 'metrics.jsonl'), 'utf8').trim().split('\n')
  const metrics = lines.map((line) => JSON.parse(line))
  const tags = {
    'loss/train': 'loss',
    'loss/validation': 'val_loss',
    'optimizer/learning_rate': 'lr',
    'optimizer/gradient_norm': 'grad_norm',
    'speed/tokens_per_second': 'tokens_per_second',
    'memory/process_mib': 'memory_mib',
  }
  const problems = []
  const expect = (what, found, wanted) => {
    if (JSON.stringify(found) !== JSON.stringify(wanted)) {
      problems.push(`${what}: ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`)
    }
  }
  const of = (name, round) =>
    metrics.filter((line) => name in line).map((line) => [line.step, round(line[name])])
  for (const [tag, name] of Object.entries(tags))
    expect(tag, read.scalars[tag], of(name, Math.fround))
  const code = (text) => text.replace(/^/gm, '    ')
  // TensorBoard takes back only scalars: of a text that was logged twice, the last one counts.
  expect('sample', [...new Map(read.texts.sample)], of('sample', code))
  return problems
}

try {
  train()
  const script = path.join(__dirname, 'read_tensorboard.py')
  const read = JSON.parse(
    execFileSync(python, [script, path.join(run, 'tensorboard')], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }),
  )
  const problems = compare(read)
  const count = Object.keys(read.scalars).length
  process.stdout.write(
    problems.length > 0 ? `${problems.join('\n')}\n` : `${count} scalars agree\n`,
  )
  process.exitCode = problems.length > 0 ? 1 : 0
} finally {
  fs.rmSync(folder, { recursive: true, force: true })
}
