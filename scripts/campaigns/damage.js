/**
 * Damages every file of a run, of its checkpoint and of its data, one at a time: flips a random
 * bit, or cuts the file off at a random length. Each time, a training is resumed or started from
 * it, in this process. It must fail with an error code, fall back to an earlier checkpoint, or not
 * depend on what was damaged. In the last two cases it must end with the weights, moments and
 * metrics of the undamaged run. HARMLESS lists the files whose damage may go unnoticed, and why.
 *
 * Usage: node scripts/campaigns/damage.js [--flips 1000] [--cuts 200] [--seed 1] [--only latest]
 */
const { root, text, claim, campaign, option } = require('./claims')
const fs = require('node:fs')
const path = require('node:path')
const { KindlingError, Tokenizer, TokenStore, Trainer } = require(path.join(root, 'dist'))

const RUN = {
  ...{ dModel: 16, numHeads: 2, dFf: 24, numLayers: 1, maxSeqLength: 16, seqLength: 16 },
  ...{ batchSize: 2, maxSteps: 6, saveInterval: 2, logInterval: 1, evalInterval: 3, keep: 2 },
  ...{ evalTokens: 64, sampleInterval: 0, threads: 1, device: 'cpu' },
}
/** The step at which the run is stopped, and then damaged. */
const REACHED = 4
const CHECKPOINT = `run/checkpoints/step-0000000${REACHED}`

/** Files whose damage may go unnoticed, and why. */
const HARMLESS = {
  'run/latest': 'a hint: what it cannot name, the newest whole checkpoint is',
  'run/metrics.jsonl': 'a log: lines that are no JSON are dropped, and nothing is computed from it',
  'run/system.json': 'the machine that the run began on, for people; nothing is computed from it',
  'tokenizer/vocab.json': 'for other programs; Kindling reads tokenizer.json',
  'tokenizer/merges.txt': 'for other programs; Kindling reads tokenizer.json',
  'tokenizer/tokenizer.json':
    'only where vocabulary, merges and pattern are the same, by their hash',
}
const reasonFor = (file) =>
  HARMLESS[file] ?? HARMLESS[Object.keys(HARMLESS).find((name) => file.endsWith(`/${name}`))]

let state = Number(option('seed', '1'))
/** Returns an integer in [0, bound) (a linear congruential generator). */
function draw(bound) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return Math.floor((state / 2 ** 32) * bound)
}

/** Trains; returns what happened: { code } of the error, or { messages }. */
async function train(options) {
  const messages = []
  try {
    const trainer = new Trainer(options)
    trainer.on('message', (message) => messages.push(message))
    await trainer.run()
    return { messages }
  } catch (error) {
    const isCoded = error instanceof KindlingError && error.code !== 'ERR_INTERNAL'
    return { code: isCoded ? error.code : `without a code: ${error.stack}` }
  }
}

/** Returns the result of a run: weights, moments, and on request metrics without times. */
function outcome(run, step, withMetrics) {
  const folder = path.join(run, 'checkpoints', `step-0000000${step}`)
  const files = ['model.safetensors', 'optimizer.safetensors']
  const parts = files.map((name) => fs.readFileSync(path.join(folder, name), 'latin1'))
  if (withMetrics) {
    const metrics = fs.readFileSync(path.join(run, 'metrics.jsonl'), 'utf8')
    parts.push(metrics.replaceAll(/"(tokens_per_second|elapsed_s|memory_mib)":[^,}]+/g, '"$1":0'))
  }
  return parts.join('\0')
}

/** Returns a damaged copy of `bytes`, and what was done to it. */
function damaged(bytes, kind) {
  if (kind === 'cut') {
    const length = draw(bytes.length)
    return { copy: bytes.subarray(0, length), what: `cut to ${length} of ${bytes.length} bytes` }
  }
  const [at, bit] = [draw(bytes.length), draw(8)]
  const copy = Buffer.from(bytes)
  copy[at] ^= 1 << bit
  return { copy, what: `bit ${bit} of byte ${at} of ${bytes.length} flipped` }
}

/** The run and its data: the undamaged originals, and the copy that is damaged. */
class Patient {
  constructor(folder) {
    this.whole = path.join(folder, 'whole')
    this.place = path.join(folder, 'place')
    this.run = path.join(this.place, 'run')
  }

  /**
   * Makes the data and a run that was stopped, and records the results of resuming it and of
   * starting another run.
   */
  async prepare() {
    fs.mkdirSync(this.place)
    const corpus = path.join(this.place, 'corpus.txt')
    fs.writeFileSync(corpus, fs.readFileSync(text, 'utf8').slice(0, 6_000))
    const tokenizer = await Tokenizer.train([corpus], { vocabSize: 270 })
    const data = path.join(this.place, 'data')
    const options = { validFraction: 0.1, chunkSize: 1_000 }
    await TokenStore.encodeFiles([corpus], tokenizer, data, options)
    await new Trainer({ ...RUN, data, run: this.run, stopAtStep: REACHED }).run()
    fs.renameSync(this.place, this.whole)
    this.restore()
    this.resumed = await this.resume('')
    this.started = await this.start('')
    if (this.resumed.code ?? this.started.code) throw new Error('the unbroken run fails')
  }

  restore() {
    fs.rmSync(this.place, { recursive: true, force: true })
    fs.cpSync(this.whole, this.place, { recursive: true })
  }

  files() {
    const list = (folder) =>
      fs.readdirSync(path.join(this.whole, folder), { recursive: true, withFileTypes: true })
    const found = ['run', 'data'].flatMap(list).filter((entry) => entry.isFile())
    const names = found.map((entry) => path.join(entry.parentPath ?? entry.path, entry.name))
    return names
      .map((name) => path.relative(this.whole, name))
      .filter((name) => !name.includes('/checkpoints/') || name.startsWith(CHECKPOINT))
      .sort()
  }

  /** Resumes the run to its end. */
  async resume(file) {
    const done = await train({ run: this.run, resume: true })
    if (done.code) return done
    return { ...done, outcome: outcome(this.run, RUN.maxSteps, file !== 'run/metrics.jsonl') }
  }

  /** Starts another run on the data. */
  async start() {
    const run = path.join(this.place, 'second')
    const data = path.join(this.place, 'data')
    const done = await train({ ...RUN, data, run, stopAtStep: 2 })
    return done.code ? done : { ...done, outcome: outcome(run, 2, true) }
  }
}

/** Damages one file once. Returns `found`, `fell back`, `harmless`, or what is wrong. */
async function hurt(patient, file, kind, isStart) {
  patient.restore()
  const at = path.join(patient.place, file)
  const { copy, what } = damaged(fs.readFileSync(at), kind)
  fs.writeFileSync(at, copy)
  const done = isStart ? await patient.start() : await patient.resume(file)
  const wrong = (how) => `${file}, ${what}, ${isStart ? 'started' : 'resumed'}: ${how}`
  if (done.code) return done.code.startsWith('ERR_') ? 'found' : wrong(done.code)
  const expected = isStart ? patient.started : patient.resumed
  const same = file === 'run/metrics.jsonl' ? withoutMetrics(expected.outcome) : expected.outcome
  if (done.outcome !== same) return wrong('taken as if it were whole')
  if (done.messages.some((message) => /trying an earlier|using the newest/.test(message)))
    return 'fell back'
  return reasonFor(file) ? 'harmless' : wrong('not noticed')
}

const withoutMetrics = (whole) => whole.slice(0, whole.lastIndexOf('\0'))

campaign(async (temporary) => {
  const memory = '/dev/shm'
  const folder = fs.existsSync(memory)
    ? fs.mkdtempSync(path.join(memory, 'kindling-damage-'))
    : temporary
  const times = { flip: Number(option('flips', '1000')), cut: Number(option('cuts', '200')) }
  try {
    const patient = new Patient(folder)
    await patient.prepare()
    for (const file of patient.files()) {
      if (!file.includes(option('only', ''))) continue
      const counts = {}
      const wrong = []
      for (const [kind, number] of Object.entries(times)) {
        for (let i = 0; i < number; i++) {
          const isStart = file.startsWith('data/') && i % 2 === 0
          const verdict = await hurt(patient, file, kind, isStart)
          if (/^(found|fell back|harmless)$/.test(verdict))
            counts[verdict] = (counts[verdict] ?? 0) + 1
          else wrong.push(verdict)
        }
      }
      for (const what of wrong.slice(0, 5)) process.stdout.write(`${what}\n`)
      const parts = Object.entries(counts).map(([verdict, count]) => `${count} ${verdict}`)
      const why = counts.harmless ? `; ${reasonFor(file)}` : ''
      claim(
        `damage of ${file} is found, or changes nothing`,
        wrong.length === 0,
        `${parts.join(', ')}, ${wrong.length} wrong${why}`,
      )
    }
  } finally {
    if (folder !== temporary) fs.rmSync(folder, { recursive: true, force: true })
  }
})
