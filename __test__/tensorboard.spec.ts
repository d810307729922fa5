/** TensorBoard's event files: byte for byte what its own writer makes, and what a run writes. */
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { crc32c } from '../src/tensorboard/crc32c'
import { restartRecord, scalarRecord, textRecord, versionRecord } from '../src/tensorboard/events'
import { succeed, words } from './command-line'
import { encodeCorpus } from './small-runs'

test('events are those of TensorBoard, byte for byte', (t) => {
  const ours = Buffer.concat([
    versionRecord(1_700_000_000.25),
    restartRecord({ wallTime: 1_700_000_001.5, step: 7 }),
    scalarRecord({ wallTime: 1_700_000_002, step: 1 }, 'loss/train', 3.25),
    scalarRecord({ wallTime: 1_700_000_003, step: 2 ** 40 + 5 }, 'optimizer/lr', 1e-4),
    scalarRecord({ wallTime: 1_700_000_004, step: 300 }, 'zero', 0),
    textRecord({ wallTime: 1_700_000_005, step: 300 }, 'sample', '    Schnee – 雪\n'.repeat(40)),
  ])
  const theirs = readFileSync(join(__dirname, 'fixtures', 'tensorboard', 'events.bin'))
  t.deepEqual(ours, theirs)
})

test('the checksum is CRC-32C: the examples of RFC 3720, B.4', (t) => {
  t.is(crc32c(Buffer.alloc(32)), 0x8a9136aa)
  t.is(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43)
  t.is(crc32c(Buffer.from(Array.from({ length: 32 }, (_, i) => i))), 0x46dd794e)
})

/** The messages of an event file. */
function messages(file: string): Buffer[] {
  const bytes = readFileSync(file)
  const found: Buffer[] = []
  for (let at = 0; at < bytes.length;) {
    const length = Number(bytes.readBigUInt64LE(at))
    found.push(bytes.subarray(at + 12, at + 12 + length))
    at += 16 + length
  }
  return found
}

test('train --log tensorboard writes a file per start; without the flag there is none', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, 'run')
  const more = words('--max-steps 6 --log-interval 2 --eval-interval 6 --eval-tokens 64')
  const train = ['train', ...flags, '--run', run, ...more]
  await succeed(t, [...train, ...words('--stop-at-step 4 --log tensorboard')])
  await succeed(t, ['train', '--run', run, '--resume'])
  const events = join(run, 'tensorboard')
  const files = readdirSync(events).sort()
  t.is(files.length, 2)
  const [first, second] = files.map((name) => messages(join(events, name)))
  const count = (list: Buffer[], text: string): number =>
    list.filter((message) => message.includes(text)).length
  t.is(count(first!, 'loss/train'), 2)
  t.is(count(second!, 'loss/train'), 1)
  t.is(count(second!, 'loss/validation'), 1)
  t.is(count(second!, 'sample'), 2, 'a sample, and the options, which name it')

  const other = join(folder, 'other')
  await succeed(t, ['train', ...flags, '--run', other, ...more])
  t.false(readdirSync(other).includes('tensorboard'))
})

test('a run goes on if its event files cannot be written, and says so', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, 'run')
  const more = words('--max-steps 4 --log-interval 2 --log tensorboard')
  await succeed(t, ['train', ...flags, '--run', run, ...more, '--stop-at-step', '2'])
  rmSync(join(run, 'tensorboard'), { recursive: true })
  writeFileSync(join(run, 'tensorboard'), 'a file')
  const { stderr } = await succeed(t, ['train', '--run', run, '--resume'])
  t.is(stderr.match(/TensorBoard logging stopped/g)?.length, 1)
})
