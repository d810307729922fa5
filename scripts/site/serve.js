/**
 * Serves the built site on 127.0.0.1, as any static server would. `npm run docs:serve` prints its
 * address; PORT sets the port, a free one otherwise.
 */
const fs = require('node:fs')
const http = require('node:http')
const path = require('node:path')

const html = path.join(__dirname, '..', '..', 'target', 'site', 'html')
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.json': 'application/json',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
}

/** Starts the server; resolves to its URL and a function that stops it. */
function serve(port = 0) {
  const files = new Set(
    fs.readdirSync(html, { recursive: true }).map((name) => name.split(path.sep).join('/')),
  )
  const server = http.createServer((request, response) => {
    const wanted = decodeURIComponent(new URL(request.url, 'http://site').pathname).slice(1)
    const candidates = [wanted, `${wanted}.html`, path.posix.join(wanted, 'index.html')]
    // Only names that were listed are served, so that no path leads out of the folder.
    const name = candidates.find((file) => path.extname(file) !== '' && files.has(file))
    response.statusCode = name === undefined ? 404 : 200
    const file = name ?? '404.html'
    response.setHeader('Content-Type', TYPES[path.extname(file)] ?? 'application/octet-stream')
    fs.createReadStream(path.join(html, file)).pipe(response)
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => {
      const url = `http://127.0.0.1:${server.address().port}/`
      resolve({ url, stop: () => server.close() })
    })
  })
}

module.exports = { serve }
if (require.main === module) {
  void serve(Number(process.env.PORT ?? 0)).then(({ url }) => process.stdout.write(`${url}\n`))
}
