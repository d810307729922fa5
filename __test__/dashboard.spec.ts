/** The server of the dashboard: who may read it, and the data it serves. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { get, request } from 'node:http'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import test, { type ExecutionContext } from 'ava'
import { CLI, failed, kindling, words } from './command-line'
import { temporaryFolder } from './helpers'
import { encodeCorpus } from './small-runs'

interface Answer {
  status: number
  headers: Record<string, unknown>
  body: string
}

/** Starts a dashboard and returns its URL. */
async function start(t: ExecutionContext, places: readonly string[]): Promise<string> {
  const child = spawn(process.execPath, [CLI, 'dashboard', ...places, '--no-open', '--json'])
  t.teardown(() => child.kill('SIGKILL'))
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string]
  return (JSON.parse(line) as { url: string }).url
}

function ask(url: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { headers, method }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (text: string) => (body += text))
      response.on('end', () =>
        resolve({ status: response.statusCode!, headers: response.headers, body }),
      )
    })
    sent.on('error', reject).end()
  })
}

async function json<T>(url: string): Promise<T> {
  return JSON.parse((await ask(url)).body) as T
}

const line = (step: number, more: object = {}): string =>
  `${JSON.stringify({ step, tokens: step * 64, loss: 10 / step, elapsed_s: step, ...more })}\n`

function writeRun(folder: string, steps: number): string {
  mkdirSync(folder, { recursive: true })
  const lines = Array.from({ length: steps }, (_, i) => line(i + 1))
  writeFileSync(join(folder, 'metrics.jsonl'), lines.join(''))
  return folder
}

test('only requests with the URL, from this machine and this page, are answered', async (t) => {
  const url = await start(t, [writeRun(join(temporaryFolder(t), 'run'), 3)])
  t.regex(url, /^http:\/\/127\.0\.0\.1:\d+\/[\w-]{24}\/$/)
  const { origin, host, port } = new URL(url)
  t.is((await ask(url)).status, 200)
  t.is((await ask(`${url}api/runs`)).status, 200)
  t.is((await ask(`${url}api/runs`, { Origin: origin })).status, 200)
  t.is((await ask(`${url}api/runs`, { Host: `localhost:${port}` })).status, 200)
  const refused: [string, Record<string, string>?][] = [
    [`${origin}/`],
    [`${origin}/api/runs`],
    [`${origin}/main.js`],
    [`${origin}/${'x'.repeat(24)}/api/runs`],
    [`${url}api/runs`, { Origin: 'http://evil.example' }],
    [`${url}api/runs`, { Origin: 'null' }],
    [`${url}api/events`, { Origin: `http://127.0.0.1:1` }],
    [`${url}api/runs`, { Host: `evil.example:${port}` }],
    [`${url}api/runs`, { Host: '127.0.0.1' }],
    [`${url}api/runs`, { 'Sec-Fetch-Site': 'cross-site' }],
  ]
  for (const [place, headers] of refused) {
    const { status, body } = await ask(place, headers)
    t.is(status, 403, `${place} ${JSON.stringify(headers)}`)
    t.notRegex(body, /loss|run/)
  }
  t.is((await ask(`${url}api/runs`, {}, 'POST')).status, 405)
  t.is(host, `127.0.0.1:${port}`)
})

test('every answer forbids resources of other servers, and no path leads out of the page', async (t) => {
  const url = await start(t, [writeRun(join(temporaryFolder(t), 'run'), 3)])
  for (const name of ['', 'page.css', 'main.js', 'vendor/uPlot.esm.js', 'api/runs', 'nothing']) {
    const { headers } = await ask(`${url}${name}`)
    const policy = String(headers['content-security-policy'])
    t.regex(policy, /^default-src 'none'; script-src 'self'; style-src 'self'/)
    t.notRegex(policy, /unsafe|https?:|\*/)
    t.is(headers['x-content-type-options'], 'nosniff')
    t.is(headers['referrer-policy'], 'no-referrer')
  }
  t.notRegex((await ask(url)).body, /https?:\/\//)
  for (const name of [
    '../server.js',
    '%2e%2e/server.js',
    '..%2fserver.js',
    'api/../../x',
    'api/x',
  ]) {
    const { port } = new URL(url)
    const path = `${new URL(url).pathname}${name}`
    const status = await new Promise<number>((resolve, reject) => {
      get({ host: '127.0.0.1', port, path }, (response) => {
        response.resume()
        resolve(response.statusCode!)
      }).on('error', reject)
    })
    t.true(status === 404 || status === 403, `${name}: ${status}`)
  }
})

interface Series {
  is_complete: boolean
  range: { from: number; to: number }
  series: Record<string, { id: number; x: number[]; y: number[] }[]>
}

test('series are those of the window, thinned, and follow a file that grows or is cut', async (t) => {
  const folder = temporaryFolder(t)
  const run = writeRun(join(folder, 'runs', 'a'), 5000)
  writeRun(join(folder, 'runs', 'b'), 10)
  const url = await start(t, [join(folder, 'runs')])
  const { runs } = await json<{ runs: { id: number; name: string; state: string }[] }>(
    `${url}api/runs`,
  )
  t.deepEqual(
    runs.map(({ name, state }) => [name, state]),
    [
      ['a', 'broken'],
      ['b', 'broken'],
    ],
  )
  const series = `${url}api/series?ids=0,1&metrics=loss,lr,__proto__&buckets=100`
  // An answer does not wait until the files are read, so it may take several.
  const until = async (to: number): Promise<Series> => {
    for (;;) {
      const found = await json<Series>(series)
      if (found.is_complete && found.range.to === to) return found
    }
  }
  const whole = await until(5000)
  t.is(whole.range.from, 1)
  t.deepEqual(Object.keys(whole.series), ['loss', 'lr'])
  const [a, b] = whole.series['loss']!
  t.true(a!.x.length > 100 && a!.x.length <= 202)
  t.is(b!.x.length, 10)
  const part = await json<Series>(`${series}&from=20&to=30&axis=tokens`)
  t.deepEqual(part.series['loss']![0]!.x, [64])
  const steps = await json<Series>(`${series}&from=20&to=30`)
  t.deepEqual(steps.series['loss']![0]!.x, [19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30])

  appendFileSync(join(run, 'metrics.jsonl'), line(5001, { sample: '<b>&' }))
  await until(5001)
  const { samples } = await json<{ samples: object[] }>(`${url}api/samples?ids=0`)
  t.deepEqual(samples, [{ step: 5001, text: '<b>&' }])
  writeFileSync(join(folder, 'cut'), Array.from({ length: 40 }, (_, i) => line(i + 1)).join(''))
  renameSync(join(folder, 'cut'), join(run, 'metrics.jsonl'))
  await until(40)
  for (const odd of [
    '?ids=99',
    '?ids=x&axis=y&buckets=-1&from=z',
    '?ids=0&from=9&to=1&buckets=1e9',
  ]) {
    t.is((await ask(`${url}api/series${odd}&metrics=loss`)).status, 200, odd)
  }
})

test('train --dashboard serves the run while it trains, and changes are streamed', async (t) => {
  const { folder, flags } = await encodeCorpus(t)
  const run = join(folder, 'run')
  const more = words('--max-steps 1000000 --log-interval 1 --dashboard')
  const child = spawn(process.execPath, [CLI, 'train', ...flags, '--run', run, ...more])
  t.teardown(() => child.kill('SIGKILL'))
  child.stdout.resume()
  const url = await new Promise<string>((resolve) => {
    createInterface(child.stderr).on('line', (text) => {
      const found = /^dashboard: (\S+)$/.exec(text)
      if (found) resolve(found[1]!)
    })
  })
  await ask(`${url}api/series?ids=0&metrics=loss`)
  const steps: number[] = []
  await new Promise<void>((resolve) => {
    get(`${url}api/events`, (response) => {
      createInterface(response).on('line', (text) => {
        if (!text.startsWith('data: ')) return
        const { runs } = JSON.parse(text.slice(6)) as { runs: { state: string; steps: number }[] }
        t.is(runs[0]!.state, 'running')
        if (steps.at(-1) !== runs[0]!.steps) steps.push(runs[0]!.steps)
        if (steps.length === 3) resolve()
      })
    }).on('error', () => {})
  })
  t.true(steps[2]! > steps[0]!)
  const details = await json<{ system: Record<string, unknown>; command: string }>(
    `${url}api/run?ids=0`,
  )
  t.is(details.system['device'], 'cpu')
  t.regex(details.command, /^kindling train .*--d-model 16/)
  t.true(existsSync(join(run, 'system.json')))
  const closed = once(child, 'close')
  child.kill('SIGTERM')
  const [code] = (await closed) as [number]
  t.is(code, 130)
})

test('a missing run and a port in use are errors with a code', async (t) => {
  failed(t, await kindling(['dashboard', 'no/such/run']), {
    exit: 1,
    code: 'ERR_NOT_FOUND',
    message: /no\/such\/run does not exist/,
  })
  const url = await start(t, [temporaryFolder(t)])
  const { port } = new URL(url)
  failed(t, await kindling(['dashboard', temporaryFolder(t), '--no-open', '--port', port]), {
    exit: 1,
    code: 'ERR_IO',
    message: /cannot listen on 127\.0\.0\.1/,
  })
})
