/**
 * Kills `kindling encode` (SIGKILL) at random moments, and as soon as it reaches each of its
 * stages. Checks that the store is then absent, complete or unchanged, and that running the command
 * again writes the same files, byte for byte, as a run that was not killed.
 *
 * Usage: node scripts/campaigns/encode-kill.js [--rounds 100] [--megabytes 48] [--seed 1]
 */
const { root, text, claim, campaign, kindling, kindlingJson, option } = require('./claims')
const { spawn } = require('node:child_process')
const { createHash } = require('node:crypto')
const fs = require('node:fs')
const path = require('node:path')
const zlib = require('node:zlib')
const { TokenStore } = require('../../dist')

const CLI = path.join(root, 'dist', 'cli', 'index.js')
/** Maximum number of kills per run, after which it may finish. */
const MAX_KILLS = 6

let state = Number(option('seed', '1'))
/** Returns a number in [0, 1) (a linear congruential generator). */
function draw() {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return state / 2 ** 32
}

/**
 * Returns a hash of the names and contents of all files in `folder`, or null if it does not exist.
 */
function fingerprint(folder) {
  if (!fs.existsSync(folder)) return null
  const hash = createHash('sha256')
  for (const name of fs.readdirSync(folder, { recursive: true }).sort()) {
    const file = path.join(folder, name)
    if (fs.statSync(file).isFile())
      hash.update(`${name}\0`).update(fs.readFileSync(file)).update('\0')
  }
  return hash.digest('hex')
}

/** Returns the temporary folder of an encoding to `out`: it is beside `out` or in it. */
function temporary(out) {
  const prefix = `.${path.basename(out)}.`
  for (const parent of [path.dirname(out), out]) {
    const name =
      fs.existsSync(parent) && fs.readdirSync(parent).find((entry) => entry.startsWith(prefix))
    if (name) return path.join(parent, name)
  }
  return null
}

/** The stages of an encoding in order, each with a test of whether its folder shows it. */
const STAGES = {
  'the temporary folder': (at) => at !== null,
  'the lock': (at) => at && fs.existsSync(path.join(at, '.lock')),
  'the first chunk': (at) => at && made(at).includes('chunk_0'),
  'the second chunk': (at) => at && made(at).includes('chunk_1'),
  'a journal line about text': (at) => at && journal(at).includes('"text"'),
  'the validation store': (at) => at && made(at).includes('valid_chunks'),
  'the journal line about the split': (at) => at && journal(at).includes('"split"'),
  'store.json': (at) => at && made(at).includes('store.json'),
  'the tokenizer': (at) => at && made(at).includes('tokenizer'),
  'the old store is moved away': (at) => at && fs.existsSync(path.join(at, 'old')),
  'the new store is moved in': (at) => at && journal(at).includes('"moving"'),
}

function made(at) {
  const folder = path.join(at, 'made')
  return fs.existsSync(folder) ? fs.readdirSync(folder, { recursive: true }).join() : ''
}

function journal(at) {
  const file = path.join(at, 'journal.jsonl')
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8').slice(-2_000) : ''
}

/**
 * Runs the command, and kills it after `milliseconds` or once `shows` returns true. Returns its
 * exit code, or null if it was killed.
 */
async function killed(args, out, { milliseconds, shows }) {
  const child = spawn(process.execPath, [CLI, ...args], { stdio: 'ignore' })
  const ended = new Promise((resolve) => child.on('close', resolve))
  if (milliseconds !== undefined) setTimeout(() => child.kill('SIGKILL'), milliseconds)
  if (shows) await killOnceItShows(child, out, shows)
  return ended
}

async function killOnceItShows(child, out, shows) {
  while (child.exitCode === null && child.signalCode === null) {
    try {
      if (shows(temporary(out))) child.kill('SIGKILL')
    } catch (error) {
      // A folder can be renamed while it is read.
      if (error.code !== 'ENOENT') throw error
    }
    await new Promise(setImmediate)
  }
}

/** Returns the state that a kill left: `absent`, `old`, `new`, or what is wrong. */
async function stateOf(out, before, whole) {
  const stores = [out, path.join(out, 'train_chunks'), path.join(out, 'valid_chunks')]
  const found = stores.filter((store) => fs.existsSync(path.join(store, 'store.json')))
  for (const store of found) {
    try {
      await (await TokenStore.open(store)).verify()
    } catch (error) {
      return `${store}: ${error.message}`
    }
  }
  const train = found.some((store) => !store.endsWith('valid_chunks'))
  if (!train) return 'absent'
  const now = visible(out)
  return now === whole ? 'new' : now === before ? 'old' : 'neither the old store nor the new one'
}

/** Returns the fingerprint of `folder` without the temporary folder in it. */
function visible(out) {
  const hidden = temporary(out)
  if (!hidden || path.dirname(hidden) !== out) return fingerprint(out)
  const aside = path.join(path.dirname(out), 'aside')
  fs.renameSync(hidden, aside)
  const found = fingerprint(out)
  fs.renameSync(aside, hidden)
  return found
}

/** Writes random lines of the built-in text, `bytes` in total, as text, gzip and JSON Lines. */
function writeInputs(folder, bytes) {
  const lines = fs.readFileSync(text, 'utf8').split('\n')
  let drawn = ''
  while (drawn.length < bytes / 3) drawn += `${lines[Math.floor(draw() * lines.length)]}\n`
  const names = ['a.txt', 'b.txt.gz', 'c.jsonl'].map((name) => path.join(folder, name))
  fs.writeFileSync(names[0], drawn)
  fs.writeFileSync(names[1], zlib.gzipSync(drawn, { level: 1 }))
  fs.writeFileSync(
    names[2],
    drawn.replace(/.*\n/g, (line) => `${JSON.stringify({ text: line })}\n`),
  )
  return names
}

campaign(async (folder) => {
  const rounds = Number(option('rounds', '100'))
  const tokenizer = path.join(folder, 'tokenizer')
  kindlingJson('tokenizer', 'train', text, '--vocab-size', '1000', '--out', tokenizer)
  // The encoder knows no safe cuts for this pattern, so it encodes each file as one long text.
  const uncut = path.join(folder, 'uncut')
  const pattern = String.raw`\w+(?= )|\s+|[^\s\w]+|\w+`
  kindlingJson(
    'tokenizer',
    'train',
    text,
    '--vocab-size',
    '1000',
    '--pattern',
    pattern,
    '--out',
    uncut,
  )
  const inputs = writeInputs(folder, Number(option('megabytes', '48')) * 1e6)
  const flags = [
    '--tokenizer',
    tokenizer,
    '--chunk-size',
    '100000',
    '--append-eot',
    '--threads',
    '2',
  ]
  const kinds = [
    { name: 'x_chunks', flags, old: false },
    { name: 'x_chunks', flags: [...flags, '--token-dtype', 'uint16'], old: true },
    { name: 'data', flags: [...flags, '--valid-fraction', '0.3'], old: false },
    { name: 'data', flags: [...flags, '--valid-fraction', '0.3'], old: true },
    { name: 'x_chunks', flags: flags.with(1, uncut), old: true },
  ]
  for (const [number, kind] of kinds.entries()) {
    const place = path.join(folder, `whole-${number}`, kind.name)
    const started = performance.now()
    kindlingJson('encode', ...inputs, '--out', place, ...kind.flags)
    Object.assign(kind, { whole: fingerprint(place), milliseconds: performance.now() - started })
  }

  const stages = Object.entries(STAGES)
  const count = { kills: 0, absent: 0, old: 0, new: 0 }
  const wrong = []
  for (let round = 0; round < rounds; round++) {
    const kind = kinds[(round >> 1) % kinds.length]
    const out = path.join(folder, `round-${round}`, kind.name)
    if (kind.old) kindlingJson('encode', text, '--out', out, ...kind.flags)
    const before = fingerprint(out)
    const args = ['encode', ...inputs, '--out', out, ...kind.flags]
    // Odd rounds kill at each stage in turn, even rounds at random moments.
    for (let kill = 0; kill < MAX_KILLS; kill++) {
      const stage = stages[(round >> 1) % stages.length]
      const when =
        round % 2 ? { shows: stage[1] } : { milliseconds: 60 + draw() * kind.milliseconds }
      if (kill > 0) when.milliseconds ??= 60 + draw() * kind.milliseconds
      const code = await killed(
        args,
        out,
        kill > 0 && round % 2 ? { milliseconds: when.milliseconds } : when,
      )
      if (code === 0) break
      if (code !== null) wrong.push(`round ${round}: exit ${code}`)
      count.kills++
      const left = await stateOf(out, before, kind.whole)
      if (left in count) count[left]++
      else
        wrong.push(
          `round ${round}, after kill ${kill + 1} (${round % 2 ? stage[0] : 'random'}): ${left}`,
        )
    }
    const last = kindling(...args)
    const rest = [
      temporary(out),
      ...fs.readdirSync(path.dirname(out)).filter((name) => name.startsWith('.')),
    ]
    if (last.status !== 0) wrong.push(`round ${round}: ${last.stderr}`)
    else if (fingerprint(out) !== kind.whole)
      wrong.push(`round ${round}: the store differs from that of a run without kills`)
    else if (rest.some(Boolean)) wrong.push(`round ${round}: ${rest.join(' ')} is left behind`)
    fs.rmSync(path.join(folder, `round-${round}`), { recursive: true })
  }
  const { kills, ...states } = count
  claim(
    'a kill leaves a store absent, complete or unchanged, and the next run writes the right one',
    wrong.length === 0 && kills > 0,
    wrong.join('; ') || `${rounds} rounds, ${kills} kills; left: ${JSON.stringify(states)}`,
  )
})
