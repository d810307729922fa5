/**
 * Kills trainings (SIGKILL) at random moments: while a corpus is prepared, in steps, evaluations
 * and checkpoints. Resumes each to its end, and checks that no checkpoint that `latest` named is
 * lost, that weights, moments and metrics equal those of a run without kills, and that nothing else
 * is left. After some kills `latest` is removed, since it is only a hint. A SIGKILL keeps what was
 * written, synced or not, so TMPDIR=/dev/shm will do and makes each run ten times as short.
 *
 * Usage: node scripts/campaigns/train-kill.js [--rounds 100] [--races 20] [--seed 1]
 */
const { root, text, claim, campaign, option } = require('./claims')
const { spawn } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { setTimeout } = require('node:timers/promises')

const CLI = path.join(root, 'dist', 'cli', 'index.js')
const STEPS = 240
/** Maximum number of kills per run, after which it may finish. */
const MAX_KILLS = 3
const FLAGS = [
  // A model so small that most of the time goes into saves, evaluations and starts.
  '--d-model 16 --num-heads 2 --d-ff 32 --num-layers 1 --vocab-size 260 --threads 1',
  '--max-seq-length 16 --seq-length 16 --batch-size 4 --lr 1e-3 --lr-min 1e-4',
  `--max-steps ${STEPS} --log-interval 3 --save-interval 2 --keep 2 --keep-every 80`,
  '--eval-interval 10 --eval-tokens 2048 --sample-interval 30 --device cpu',
].flatMap((line) => line.split(' '))

/** Prints how far a campaign is, after every tenth of its runs. */
function progress(number, of, what, wrong) {
  if (number % Math.ceil(of / 10) === 0 || number === of)
    process.stdout.write(`${number} of ${of}: ${what}, ${wrong.length} wrong\n`)
}

let state = Number(option('seed', '1'))
/** Returns a number in [0, 1) (a linear congruential generator). */
function draw() {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 2 ** 32
}

/**
 * Runs `kindling train`, and kills it after `milliseconds` if given, counted from its start or from
 * the first checkpoint of `run`. Returns { code, stderr, ms }.
 */
async function train(args, milliseconds, run) {
  const started = performance.now()
  const child = spawn(process.execPath, [CLI, 'train', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (chunk) => (stderr += chunk))
  const ended = new Promise((resolve) => child.on('close', resolve))
  if (run !== undefined) {
    const isSaved = () => child.exitCode !== null || fs.existsSync(path.join(run, 'latest'))
    while (!isSaved()) await setTimeout(5)
  }
  const controller = new AbortController()
  if (milliseconds !== undefined) {
    const killing = setTimeout(milliseconds, undefined, controller)
    killing.then(() => child.kill('SIGKILL')).catch(() => {})
  }
  const code = await ended
  controller.abort()
  return { code, stderr, ms: performance.now() - started }
}

/** Returns the step that `latest` names; 0 if there is none. */
function latest(run) {
  const file = path.join(run, 'latest')
  if (!fs.existsSync(file)) return 0
  return Number(fs.readFileSync(file, 'utf8').trim().slice('step-'.length))
}

/** Returns what a finished run holds: weights and moments, metrics without timings, and its best. */
function result(run) {
  const last = path.join(run, 'checkpoints', `step-${String(STEPS).padStart(8, '0')}`)
  const files = ['model.safetensors', 'optimizer.safetensors'].map((name) =>
    fs.readFileSync(path.join(last, name)).toString('base64'),
  )
  const lines = fs.readFileSync(path.join(run, 'metrics.jsonl'), 'utf8').trimEnd().split('\n')
  const metrics = lines.map((line) =>
    JSON.stringify({ ...JSON.parse(line), tokens_per_second: 0, elapsed_s: 0, memory_mib: 0 }),
  )
  const best = fs.readFileSync(path.join(run, 'best'), 'utf8')
  return { weights: files.join(), metrics: metrics.join('\n'), best }
}

/** Returns the files that a finished run should not have. */
function leftovers(run) {
  const steps = [80, 160, STEPS - 2, STEPS].map((step) => `step-${String(step).padStart(8, '0')}`)
  steps.push(result(run).best.trim())
  const top = [
    ...['best', 'checkpoints', 'config.json', 'latest', 'metrics.jsonl', 'system.json'],
    'tokenizer',
  ]
  return [
    ...fs.readdirSync(run).filter((name) => !top.includes(name)),
    ...fs.readdirSync(path.join(run, 'checkpoints')).filter((name) => !steps.includes(name)),
  ]
}

/** Kills and resumes one run until it is done; returns its kills and what went wrong. */
async function round(run, args, whole, count) {
  const wrong = []
  let [kills, committed] = [0, 0]
  for (;;) {
    const isNew = !fs.existsSync(path.join(run, 'config.json'))
    const removed = !isNew && committed > 0 && draw() < 0.2
    if (removed) fs.rmSync(path.join(run, 'latest'), { force: true })
    const last = kills >= MAX_KILLS
    const after = last ? undefined : 50 + draw() * whole.ms
    const { code, stderr } = await train(isNew ? args : ['--run', run, '--resume'], after)
    const resumed = Number(/at step (\d+) of/.exec(stderr)?.[1] ?? 0)
    if (/resuming/.test(stderr) && resumed < committed)
      wrong.push(`resumed at step ${resumed} after a checkpoint of step ${committed}`)
    if (/starting over/.test(stderr) && committed > 0) wrong.push(`started over: ${stderr}`)
    if (code === 0) break
    if (code !== null || last) return { kills, wrong: [...wrong, `exit ${code}: ${stderr}`] }
    kills++
    if (isNew && !fs.existsSync(path.join(run, 'config.json'))) count.preparation++
    committed = Math.max(committed, latest(run))
  }
  const { weights, metrics, best } = result(run)
  if (weights !== whole.weights) wrong.push('other weights or moments than without kills')
  if (metrics !== whole.metrics) wrong.push('other metrics than without kills')
  if (best !== whole.best) wrong.push(`other best checkpoint: ${best} instead of ${whole.best}`)
  const left = leftovers(run)
  if (left.length > 0) wrong.push(`left behind: ${left.join(' ')}`)
  return { kills, wrong }
}

/**
 * Resumes a killed run in two processes at once; returns what went wrong. One must take over the
 * dead process's lock. The other must be refused with the name of the first, or come after it.
 */
async function race(run, args, whole, count) {
  await train(args, 0.3 * draw() * whole.ms, run)
  const both = await Promise.all([1, 2].map(() => train(['--run', run, '--resume'])))
  const wrong = both
    .filter(({ code, stderr }) => code !== 0 && !/^ERR_RUN_LOCKED: process \d+ on /m.test(stderr))
    .map(({ code, stderr }) => `exit ${code} in a race: ${stderr}`)
  const refused = both.filter(({ code }) => code === 1).length
  count.refused += refused
  if (refused > 1) wrong.push('both were refused')
  if (result(run).weights !== whole.weights) wrong.push('other weights after a race')
  return [...wrong, ...leftovers(run).map((name) => `a race left ${name}`)]
}

campaign(async (folder) => {
  const rounds = Number(option('rounds', '100'))
  const races = Number(option('races', '20'))
  const corpus = path.join(folder, 'corpus.txt')
  fs.writeFileSync(corpus, fs.readFileSync(text, 'utf8').slice(0, 300_000))
  const argsOf = (name, data) => {
    const run = path.join(folder, name)
    return { run, args: ['--corpus', corpus, '--data-dir', data, ...FLAGS, '--run', run] }
  }
  const shared = path.join(folder, 'data')
  const first = argsOf('whole', shared)
  const { code, stderr } = await train(first.args)
  if (code !== 0) throw new Error(stderr)
  const { ms } = await train(argsOf('timed', shared).args)
  const whole = { ...result(first.run), ms }
  const count = { runs: 0, kills: 0, preparation: 0, refused: 0 }
  const wrong = []
  for (let number = 0; count.runs < rounds && number < 4 * rounds; number++) {
    // Every third run prepares a corpus of its own, which can be killed too.
    const own = number % 3 === 0
    const { run, args } = argsOf(`run-${number}`, own ? `${shared}-${number}` : shared)
    const found = await round(run, args, whole, count)
    wrong.push(...found.wrong.map((what) => `run ${number}: ${what}`))
    fs.rmSync(run, { recursive: true, force: true })
    if (own) fs.rmSync(`${shared}-${number}`, { recursive: true, force: true })
    // A run that ended before its kill is not counted.
    if (found.kills === 0) continue
    count.kills += found.kills
    progress(++count.runs, rounds, `${count.kills} kills`, wrong)
  }
  for (let number = 1; number <= races; number++) {
    const { run, args } = argsOf(`race-${number}`, shared)
    wrong.push(...(await race(run, args, whole, count)))
    fs.rmSync(run, { recursive: true, force: true })
    progress(number, races, `${count.refused} refused one process`, wrong)
  }
  const { kills, preparation } = count
  claim(
    'of two processes that resume one run, one trains and the other is refused by name',
    races === 0 || count.refused > 0,
    `${races} races, ${count.refused} refused`,
  )
  claim(
    'a killed training resumes to the weights and metrics of one that was not killed',
    wrong.length === 0 && kills >= rounds,
    wrong.join('; ') || `${rounds} runs, ${kills} kills, ${preparation} of them in preparation`,
  )
})
