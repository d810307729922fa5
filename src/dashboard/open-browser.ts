/** Opens a URL in the user's browser. */
import { spawn } from 'node:child_process'
import { platform } from 'node:os'

/** Opens a URL if this machine seems to have a browser. Failures are ignored. */
export function openBrowser(url: string): void {
  const isDesktop =
    platform() !== 'linux' || process.env['DISPLAY'] || process.env['WAYLAND_DISPLAY']
  if (!isDesktop) return
  const [command, ...args] =
    platform() === 'darwin'
      ? ['open', url]
      : platform() === 'win32'
        ? ['cmd', '/c', 'start', '', url]
        : ['xdg-open', url]
  const child = spawn(command!, args, { detached: true, stdio: 'ignore' })
  child.on('error', () => {})
  child.unref()
}
