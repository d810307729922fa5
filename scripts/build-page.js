/**
 * Builds the page of the dashboard into dist/dashboard/page: compiles its TypeScript for browsers,
 * and copies its static files, and uPlot with its licence from the npm package. Copies the style
 * sheet of reports as well. Runs as part of `npm run build:ts`.
 */
const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..')
const source = path.join(root, 'src', 'dashboard', 'page')
const out = path.join(root, 'dist', 'dashboard', 'page')
const uplot = path.join(root, 'node_modules', 'uplot')

const tsc = path.join(root, 'node_modules', 'typescript', 'bin', 'tsc')
const { status } = spawnSync(process.execPath, [tsc, '-p', source], { stdio: 'inherit' })
if (status !== 0) process.exit(1)

const STYLES = ['palette.css', 'base.css', 'page.css', 'charts.css']
for (const name of ['index.html', ...STYLES, 'icon.svg']) {
  fs.copyFileSync(path.join(source, name), path.join(out, name))
}
fs.copyFileSync(
  path.join(root, 'src', 'report', 'report.css'),
  path.join(root, 'dist', 'report', 'report.css'),
)
const vendor = path.join(out, 'vendor')
fs.mkdirSync(vendor, { recursive: true })
for (const name of ['dist/uPlot.esm.js', 'dist/uPlot.min.css', 'LICENSE']) {
  fs.copyFileSync(path.join(uplot, name), path.join(vendor, path.basename(name)))
}
