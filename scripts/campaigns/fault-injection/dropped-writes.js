/**
 * Simulates a power cut at every moment of a tokenizer training, an encode and a training: what was
 * not synced may be lost. Each job runs once, and its writes, syncs and renames are recorded
 * (recorder.c). For every n, disk.js rebuilds what the disk may hold after the first n calls: of
 * what was not synced nothing, the names of files without their bytes, or a random part. From each
 * of these states, the same job must complete with the result of an uninterrupted one, resume at
 * the newest checkpoint that `latest` named, and leave no temporary file.
 *
 * Usage: node scripts/campaigns/fault-injection/dropped-writes.js [--stride 1] [--random 2]
 *        [--only encode] [--seed 1]
 */
const { root, text, claim, skip, campaign, option } = require('../claims')
const { Disk, readRecord } = require('./disk')
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const { Tokenizer, TokenStore, Trainer } = require(path.join(root, 'dist'))

const RUN = {
  ...{ dModel: 16, numHeads: 2, dFf: 32, numLayers: 1, maxSeqLength: 16, seqLength: 16 },
  ...{ batchSize: 2, maxSteps: 6, saveInterval: 1, keep: 2, logInterval: 1, evalInterval: 0 },
  ...{ sampleInterval: 0, threads: 1, device: 'cpu' },
}

let state = Number(option('seed', '1'))
/** Returns an integer in [0, bound) (a linear congruential generator). */
function draw(bound) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return Math.floor((state / 2 ** 32) * bound)
}

/**
 * The jobs. Each writes to `place`, where it continues from whatever it finds; its inputs are in
 * `shared`.
 */
const JOBS = {
  async tokenizer(place, shared) {
    const tokenizer = await Tokenizer.train([path.join(shared, 'small.txt')], { vocabSize: 262 })
    await tokenizer.save(path.join(place, 'tokenizer'))
  },
  async encode(place, shared) {
    const tokenizer = await Tokenizer.open(path.join(shared, 'tokenizer'))
    const options = { validFraction: 0.1, chunkSize: 3_000 }
    const data = path.join(place, 'data')
    await TokenStore.encodeFiles([path.join(shared, 'text.txt')], tokenizer, data, options)
  },
  async train(place, shared) {
    const run = path.join(place, 'run')
    const isRun = fs.existsSync(path.join(run, 'config.json'))
    const data = path.join(shared, 'data')
    const trainer = new Trainer(isRun ? { run, resume: true } : { ...RUN, data, run })
    const said = []
    trainer.on('message', (message) => said.push(message))
    await trainer.run()
    return Number(/at step (\d+) of|: (\d+) of/.exec(said.join())?.slice(1).find(Boolean) ?? 0)
  },
}
const SEPARATOR = '\0\0\0'
/** Files with times, and the empty lock file of a temporary folder. */
const IGNORED = /config|corpus|state\.json|^\.lock$/

/** Returns every file below `folder` with its content. */
function contents(folder) {
  const entries = fs.readdirSync(folder, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile() && !IGNORED.test(entry.name))
  return files
    .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name))
    .sort()
    .map((file) => `${path.relative(folder, file)} ${contentOf(file)}`)
    .join(SEPARATOR)
}

/**
 * Names the files that differ between two results of `contents`; with `onlyMissing`, only those
 * that `b` lacks.
 */
function differences(a, b, onlyMissing = false) {
  const [left, right] = [a, b].map((result) => new Set(result.split(SEPARATOR)))
  const missing = [...left].filter((line) => !right.has(line))
  const added = onlyMissing ? [] : [...right].filter((line) => !left.has(line))
  return [...new Set([...missing, ...added].map((line) => line.split(' ')[0]))].join(' ')
}

/** Returns the content of a file, without times. */
function contentOf(file) {
  const content = fs.readFileSync(file, 'latin1')
  if (!file.endsWith('metrics.jsonl')) return content
  return content.replaceAll(/"(tokens_per_second|elapsed_s|memory_mib)":[^,}]+/g, '"$1":0')
}

function leftovers(folder) {
  const names = fs.readdirSync(folder, { recursive: true })
  return names.filter((name) => /\.(partial|new|tmp|removed)(\/|$)|^run\/lock/.test(name))
}

/** Empties a folder without replacing it; creates it if there is none. */
function empty(folder) {
  for (const name of fs.existsSync(folder) ? fs.readdirSync(folder) : [])
    fs.rmSync(path.join(folder, name), { recursive: true })
  fs.mkdirSync(folder, { recursive: true })
}

/** Runs a job in a process whose calls are recorded. */
function record(name, place, shared, folder, library) {
  const log = path.join(folder, `${name}.log`)
  const env = { ...process.env, LD_PRELOAD: library, UV_USE_IO_URING: '0' }
  Object.assign(env, { KINDLING_FAULT_ROOT: place, KINDLING_FAULT_LOG: log })
  const args = [__filename, '--job', name, '--place', place, '--shared', shared]
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', env })
  if (status !== 0) throw new Error(`${name}: ${stderr}`)
  return readRecord(log)
}

/** Returns the step of the checkpoint that `latest` names after a power cut; 0 if it names none. */
function committedStep(disk) {
  const latest = disk.find('run')?.kept.get('latest')?.kept
  return latest ? Number(latest.toString().trim().slice('step-'.length)) : 0
}

/** Cuts the power after every call of a job; returns what went wrong. */
async function cutPower(name, { place, shared, folder, library, stride, random }) {
  empty(place)
  if (name === 'encode') {
    // An earlier store is replaced.
    const tokenizer = await Tokenizer.open(path.join(shared, 'tokenizer'))
    await TokenStore.encodeFiles([path.join(shared, 'small.txt')], tokenizer, `${place}/data`)
  }
  const before = new Disk()
  before.load(place)
  const calls = record(name, place, shared, folder, library)
  const whole = contents(place)
  const rebuilt = calls.reduce((disk, call) => (disk.apply(call), disk), loaded(before, place))
  const copy = path.join(folder, 'copy')
  empty(copy)
  rebuilt.write(copy, 'names')
  if (contents(copy).length !== whole.length) throw new Error(`${name}: the record has gaps`)
  const wrong = []
  let cuts = 0
  empty(place)
  rebuilt.write(place, 'nothing')
  // Removed files may come back; nothing else may differ.
  const missing = differences(whole, contents(place), true)
  if (missing !== '') wrong.push(`${name}: was done, and is lost in a power cut (${missing})`)
  const disk = loaded(before, place)
  for (let n = 0; n <= calls.length; n++) {
    if (n > 0) disk.apply(calls[n - 1])
    if (n % stride !== 0 && n !== calls.length) continue
    const committed = committedStep(disk)
    for (const keeps of ['nothing', 'names', ...Array.from({ length: random }, () => draw)]) {
      cuts += 1
      empty(place)
      disk.write(place, keeps)
      const found = await goOn(name, place, shared, committed, whole)
      const how = typeof keeps === 'string' ? keeps : 'a random part'
      wrong.push(...found.map((what) => `${name}, call ${n}, ${how} kept: ${what}`))
    }
  }
  return { wrong, cuts, calls: calls.length }
}

/** Returns a disk with what a power cut leaves of `before`. */
function loaded(before, place) {
  empty(place)
  before.write(place, 'nothing')
  const disk = new Disk()
  disk.load(place)
  return disk
}

/** Runs the job on what the power cut left; returns what went wrong. */
async function goOn(name, place, shared, committed, whole) {
  try {
    const resumed = await JOBS[name](place, shared)
    const wrong = []
    if (resumed !== undefined && resumed < committed)
      wrong.push(`resumed at step ${resumed} after a checkpoint of step ${committed}`)
    if (contents(place) !== whole)
      wrong.push(`goes on to another result (${differences(whole, contents(place))})`)
    const left = leftovers(place)
    return left.length > 0 ? [...wrong, `leaves ${left.join(' ')}`] : wrong
  } catch (error) {
    return [`does not go on: ${error.code} ${error.message}`]
  }
}

async function main(temporary) {
  const memory = '/dev/shm'
  const prefix = path.join(memory, 'kindling-power-')
  const folder = fs.existsSync(memory) ? fs.mkdtempSync(prefix) : temporary
  try {
    const library = path.join(folder, 'recorder.so')
    const source = path.join(__dirname, 'recorder.c')
    const libraries = ['-ldl', '-lpthread']
    const built = spawnSync('cc', ['-O1', '-shared', '-fPIC', '-o', library, source, ...libraries])
    if (process.platform !== 'linux' || built.status !== 0) {
      skip('power cuts', 'it takes Linux and a C compiler')
      return
    }
    const [shared, place] = ['shared', 'place'].map((name) => path.join(folder, name))
    fs.mkdirSync(shared)
    const words = fs.readFileSync(text, 'utf8')
    fs.writeFileSync(path.join(shared, 'small.txt'), words.slice(0, 20_000))
    fs.writeFileSync(path.join(shared, 'text.txt'), words.slice(0, 60_000))
    await JOBS.tokenizer(shared, shared)
    await JOBS.encode(shared, shared)
    const stride = Number(option('stride', '1'))
    const random = Number(option('random', '2'))
    for (const name of Object.keys(JOBS)) {
      if (![undefined, name].includes(option('only'))) continue
      const { wrong, cuts, calls } = await cutPower(name, {
        ...{ place, shared, folder, library, stride, random },
      })
      for (const what of wrong.slice(0, Number(option('show', '12'))))
        process.stdout.write(`${what}\n`)
      claim(
        `${name}: whenever the power is cut, nothing that was named is lost and the next run completes`,
        wrong.length === 0,
        `${calls} calls, ${cuts} power cuts, ${wrong.length} wrong`,
      )
    }
  } finally {
    if (folder !== temporary) fs.rmSync(folder, { recursive: true, force: true })
  }
}

const job = option('job')
if (job === undefined) campaign(main)
else JOBS[job](option('place'), option('shared'))
