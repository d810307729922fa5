/** `kindling report`: one file that requests nothing, escapes everything, and can be repeated. */
import { spawnSync } from 'node:child_process'
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { failed, kindling, succeed, words } from './command-line'
import { temporaryFolder } from './helpers'
import { encodeCorpus } from './small-runs'

const UNTIMED = { tokens_per_second: 0, elapsed_s: 0, memory_mib: 0 }

function metrics(run: string): object[] {
  const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n')
  return lines.map((line) => ({ ...(JSON.parse(line) as object), ...UNTIMED }))
}

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'" }

test('the command in a report repeats the run: every loss is the same', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, 'a run')
  const more = words('--max-steps 8 --log-interval 2 --eval-interval 4 --eval-tokens 64 --seed 5')
  const prompt = 'it\'s $HOME; `x` & <the> "whale"'
  const sampling = ['--sample-interval', '4', '--sample-prompt', prompt]
  await succeed(t, ['train', ...flags, '--run', run, ...more, ...sampling])
  const out = join(run, 'report.html')
  const { json } = await succeed(t, ['report', run, '--json'])
  t.deepEqual(json, [{ out }])
  const text = readFileSync(out, 'utf8')
  const shown = /<pre>kindling (train .*?)<\/pre>/s.exec(text)![1]!
  const command = shown.replace(/&(#?\w+);/g, (_, name: string) => ENTITIES[name]!)
  // A shell splits it, as it would for a user.
  const split = spawnSync('sh', ['-c', `for word in ${command}; do printf '%s\\0' "$word"; done`])
  const args = split.stdout.toString('utf8').split('\0').slice(0, -1)
  t.true(args.includes(prompt))
  const again = join(folder, 'again')
  await succeed(t, [...args, '--run', again])
  t.deepEqual(metrics(again), metrics(run))
})

test('nothing in a run becomes markup, and the file requests nothing', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, '<img src=x onerror=alert(1)>')
  await succeed(t, ['train', ...flags, '--run', run, ...words('--max-steps 2 --log-interval 1')])
  const nasty = '</style></blockquote><script>alert(1)</script>\u0000\u0007"\'&amp;<!-- ]]>'
  appendFileSync(
    join(run, 'metrics.jsonl'),
    `${JSON.stringify({ step: 3, tokens: 9, loss: 1, elapsed_s: 9, sample: nasty })}\n`,
  )
  const system = { host: nasty, 'x"><b>': '<i>' }
  writeFileSync(join(run, 'system.json'), JSON.stringify(system))
  const out = join(folder, 'report.html')
  await succeed(t, ['report', run, run, '--out', out])
  const text = readFileSync(out, 'utf8')
  t.notRegex(text, /<script|<img|<b>|<i>|<!--/i)
  t.false(text.includes('\u0000') || text.includes('\u0007'))
  t.true(text.includes('&lt;/style&gt;&lt;/blockquote&gt;&lt;script&gt;alert(1)&lt;/script&gt;'))
  t.is([...text.matchAll(/<\/style>/g)].length, 1)
  t.notRegex(text, /<(?:link|script|img|iframe|object|embed|base|form|video|audio)\b/i)
  t.notRegex(
    text.replace(/<style>.*?<\/style>/s, ''),
    /\b(?:src|href|action|style|on\w+)\s*=\s*["']/i,
  )
  t.notRegex(text, /@import|url\(/i)
  t.regex(text, /<meta http-equiv="Content-Security-Policy" content="default-src (?:'|&#39;)none/)
  for (const title of ['Results', 'Charts', 'Samples', 'Accounting', 'Configuration', 'System']) {
    t.true(text.includes(`<h2>${title}</h2>`), title)
  }
  t.regex(text, /<svg viewBox[^>]*aria-label="Training loss: /)
})

test('a broken run gets a report, and a folder that is not a run is an error', async (t) => {
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'metrics.jsonl'), '{"step": 1, "loss": 2}\nnonsense\n')
  await succeed(t, ['report', folder])
  t.regex(readFileSync(join(folder, 'report.html'), 'utf8'), /broken: it has no config\.json/)
  failed(t, await kindling(['report', temporaryFolder(t)]), {
    exit: 1,
    code: 'ERR_NOT_FOUND',
    message: /is not a run folder/,
  })
  t.is((await kindling(['report'])).code, 2)
})
