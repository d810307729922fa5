/**
 * Checks that a full disk or a read-only folder ends a command with the right error code and leaves
 * nothing half-written, and that a run keeps its last complete checkpoint. Mounts a small tmpfs, as
 * root or in a user namespace (unshare -rm); skipped where neither is possible.
 *
 * Usage: node scripts/campaigns/refused-writes.js
 */
const { root, text, claim, skip, campaign, kindling, kindlingJson } = require('./claims')
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const MODEL =
  '--d-model 64 --num-heads 4 --d-ff 128 --num-layers 2 --max-seq-length 32 --seq-length 32 --batch-size 4'
const RUN = [
  ...MODEL.split(' '),
  '--eval-interval',
  '0',
  '--sample-interval',
  '0',
  '--threads',
  '2',
]

/**
 * Runs this script again in a namespace where it may mount; returns false if it need not or cannot.
 */
function moveToNamespace() {
  if (process.getuid() === 0 || process.env.KINDLING_IN_NAMESPACE) return false
  const env = { ...process.env, KINDLING_IN_NAMESPACE: '1' }
  if (spawnSync('unshare', ['-rm', 'true']).status !== 0) return false
  const { status } = spawnSync('unshare', ['-rm', process.execPath, __filename], {
    cwd: root,
    env,
    stdio: 'inherit',
  })
  process.exitCode = status ?? 1
  return true
}

/** Calls `body` with a folder on a new file system; returns false if none can be mounted. */
function onDisk(folder, options, body) {
  const disk = path.join(folder, 'disk')
  fs.mkdirSync(disk, { recursive: true })
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', disk]).status !== 0) return false
  try {
    body(disk)
  } finally {
    spawnSync('umount', [disk])
  }
  return true
}

/** Returns the relative paths of the files in `folder` that `keep` accepts. */
function files(folder, keep = () => true) {
  return fs.readdirSync(folder, { recursive: true }).filter(keep).sort()
}

function lastLine({ stderr }) {
  return stderr.trimEnd().split('\n').at(-1)
}

function refused(what, { status, stderr }, code, left) {
  const line = lastLine({ stderr })
  claim(
    `${what} ends with 1 and ${code}`,
    status === 1 && line.includes(code),
    `exit ${status}: ${line}`,
  )
  claim(`${what} leaves nothing half-written`, left.length === 0, left.join(', ') || 'nothing')
}

/**
 * Runs each command on a disk that is too small for its output. A run may keep config.json and
 * metrics.
 */
function refuseAll(where, onThisDisk, code, { tokenizer, data }) {
  onThisDisk('8k', (disk) => {
    const made = path.join(disk, 'tokenizer')
    const result = kindling('tokenizer', 'train', text, '--vocab-size', '400', '--out', made)
    refused(`tokenizer train ${where}`, result, code, files(disk))
  })
  onThisDisk('1m', (disk) => {
    const result = kindling(
      'encode',
      text,
      '--tokenizer',
      tokenizer,
      '--out',
      path.join(disk, 'store_chunks'),
    )
    refused(`encode ${where}`, result, code, files(disk))
  })
  onThisDisk('1m', (disk) => {
    const result = kindling(
      'train',
      '--data',
      data,
      '--run',
      path.join(disk, 'run'),
      ...RUN,
      '--max-steps',
      '2',
    )
    const checkpoints = files(disk, (name) => /safetensors|latest|state\.json/.test(name))
    refused(`train ${where}`, result, code, checkpoints)
  })
}

/** Returns the weights and moments of a run's last checkpoint. */
function weightsOf(run) {
  const last = path.join(run, 'checkpoints', 'step-00000004')
  const read = (name) => fs.readFileSync(path.join(last, `${name}.safetensors`), 'base64')
  return read('model') + read('optimizer')
}

/**
 * Trains on a disk with room for one checkpoint: the run keeps the first, which is complete. With
 * more room it is resumed to the end.
 */
function fillDiskAtSecondCheckpoint(folder, { data }) {
  const train = (run) => {
    const schedule = ['--max-steps', '4', '--save-interval', '2']
    return kindling('train', '--data', data, '--run', run, ...RUN, ...schedule)
  }
  const whole = path.join(folder, 'whole')
  train(whole)
  onDisk(folder, 'size=3m', (disk) => {
    const run = path.join(disk, 'run')
    const result = train(run)
    const latest = fs.readFileSync(path.join(run, 'latest'), 'utf8').trim()
    claim(
      'train ends with 1 when the second checkpoint does not fit',
      result.status === 1,
      lastLine(result),
    )
    claim('latest names the first checkpoint', latest.endsWith('step-00000002'), latest)
    const { loss } = kindlingJson('eval', '--run', run, '--eval-tokens', '1024')
    claim('the first checkpoint is complete', Number.isFinite(loss), `loss ${loss}`)
    spawnSync('mount', ['-o', 'remount,size=12m', disk])
    const resumed = kindling('train', '--run', run, '--resume')
    claim(
      'with more room, the run resumes to the weights of one that always had it',
      resumed.status === 0 && weightsOf(run) === weightsOf(whole),
      lastLine(resumed),
    )
    const left = files(run, (name) => /partial|\.new$|\.tmp$|^lock$/.test(name))
    claim(
      'a full disk leaves no temporary file in a resumed run',
      left.length === 0,
      left.join(' '),
    )
  })
}

function main(folder) {
  const made = { tokenizer: path.join(folder, 'tokenizer'), data: path.join(folder, 'data') }
  kindlingJson('tokenizer', 'train', text, '--vocab-size', '512', '--out', made.tokenizer)
  kindlingJson(
    'encode',
    text,
    '--tokenizer',
    made.tokenizer,
    '--out',
    made.data,
    '--valid-fraction',
    '0.05',
  )
  if (!onDisk(folder, 'size=8k', () => {}))
    return skip('refused writes', 'no file system can be mounted here')
  refuseAll(
    'on a full disk',
    (size, body) => onDisk(folder, `size=${size}`, body),
    'ERR_DISK_FULL',
    made,
  )
  refuseAll(
    'in a read-only folder',
    (size, body) => onDisk(folder, 'ro', body),
    'ERR_NOT_WRITABLE',
    made,
  )
  fillDiskAtSecondCheckpoint(folder, made)
}

if (!moveToNamespace()) campaign(main)
