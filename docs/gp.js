// A Gaussian process and Expected Improvement in one dimension that a reader can move: observations are dragged, the rest follows.
// Kernel, mean and noise are those of the page on Gaussian processes; tests/test_docs.py compares the numbers with numpy.
const scale = .15, height = .5, noise = .01, prior = .3, n = 141
const W = 700, H = 260, S = 70, left = 40, grid = Array.from({length: n}, (_, i) => i/(n-1))
const truth = x => .85*Math.exp(-(((x-.7)/.17)**2)) + .5*Math.exp(-(((x-.15)/.12)**2))
const matern = d => { const s = Math.sqrt(5)*Math.abs(d)/scale; return height**2*(1+s+s*s/3)*Math.exp(-s) }

function cholesky(A) {
  const L = A.map(r => r.map(() => 0))
  for (let i = 0; i < A.length; i++) for (let j = 0; j <= i; j++) {
    const rest = A[i][j]-L[i].slice(0, j).reduce((s, v, k) => s+v*L[j][k], 0)
    L[i][j] = i==j ? Math.sqrt(rest) : rest/L[j][j]
  }
  return L
}
const forward = (L, b) => b.reduce((z, v, i) => [...z, (v-L[i].slice(0, i).reduce((s, a, k) => s+a*z[k], 0))/L[i][i]], [])

function posterior(points) {
  const L = cholesky(points.map((p, i) => points.map((q, j) => matern(p.x-q.x)+(i==j)*noise**2)))
  const y = forward(L, points.map(p => p.y-prior))
  return x => {
    const k = forward(L, points.map(p => matern(p.x-x)))
    return {mean: prior+k.reduce((s, v, i) => s+v*y[i], 0), sd: Math.sqrt(Math.max(1e-12, height**2-k.reduce((s, v) => s+v*v, 0)))}
  }
}

function Phi(z) {  // Abramowitz and Stegun 7.1.26
  const t = 1/(1+.3275911*Math.abs(z)/Math.SQRT2)
  const tail = t*(.254829592+t*(-.284496736+t*(1.421413741+t*(-1.453152027+t*1.061405429))))*Math.exp(-z*z/2)
  return z>0 ? 1-tail/2 : tail/2
}
const improvement = ({mean, sd}, best) => { const z = (mean-best)/sd; return sd*(z*Phi(z)+Math.exp(-z*z/2)/Math.sqrt(2*Math.PI)) }

const X = x => left+x*(W-left-10), Y = y => H-20-(y+.2)/1.4*(H-30)
const path = (xs, ys) => xs.map((x, i) => `${i ? 'L' : 'M'}${x.toFixed(1)} ${ys[i].toFixed(1)}`).join('')

function start(root) {
  const begin = () => [.04, .42, .95].map(x => ({x, y: truth(x)}))
  let points = begin()
  root.innerHTML = `<svg viewBox="0 0 ${W} ${H+S}" role="img" aria-label="Surrogate and Expected Improvement, which follow the observations">
    <path class="band"/><path class="truth"/><path class="mean"/><path class="best"/><path class="axis" d="M${left} ${Y(0)}H${W-10}M${left} ${H+S-10}H${W-10}"/>
    <path class="ei"/><path class="next"/><text x="0" y="${Y(1)+4}">1</text><text x="0" y="${Y(0)+4}">0</text><text x="0" y="${H+S-30}">EI</text><g></g></svg>
    <p class="said" aria-live="polite"></p>
    <button class="md-button train">Train the suggestion</button> <button class="md-button again">Start again</button>
    <label><input type="checkbox" class="show"> show the true function</label>`
  const $ = s => root.querySelector(s), svg = $('svg'), dots = $('g')

  function draw() {
    const at = posterior(points), post = grid.map(at), best = Math.max(...points.map(p => p.y))
    const ei = post.map(o => improvement(o, best)), top = ei.indexOf(Math.max(...ei)), xs = grid.map(X)
    const edge = sign => post.map(o => Y(Math.min(1.2, Math.max(-.2, o.mean+sign*1.96*o.sd))))
    const set = (name, d) => $(name).setAttribute('d', d)
    set('.band', path([...xs, ...xs.slice().reverse()], [...edge(1), ...edge(-1).reverse()])+'Z')
    set('.mean', path(xs, post.map(o => Y(o.mean))))
    set('.truth', $('.show').checked ? path(xs, grid.map(x => Y(truth(x)))) : '')
    set('.best', `M${left} ${Y(best)}H${W-10}`)
    set('.ei', path(xs, ei.map(v => H+S-10-(S-15)*v/Math.max(...ei, 1e-9)))+`L${X(1)} ${H+S-10}L${X(0)} ${H+S-10}Z`)
    set('.next', `M${xs[top]} 10V${H+S-10}`)
    points.forEach((p, i) => { dots.children[i].setAttribute('cx', X(p.x)); dots.children[i].setAttribute('cy', Y(p.y)) })
    Object.assign(root.dataset, {best, next: grid[top], mean: post[top].mean, sd: post[top].sd, ei: ei[top], points: JSON.stringify(points.map(p => [p.x, p.y]))})
    $('.said').textContent = `Best so far ${best.toFixed(2)}. Expected Improvement is largest at x = ${grid[top].toFixed(2)}: ${ei[top].toFixed(3)}, ` +
      `where the surrogate expects ${post[top].mean.toFixed(2)} ± ${post[top].sd.toFixed(2)}.`
  }
  function move(p, x, y) {
    p.x = Math.min(1, Math.max(0, x)); p.y = Math.min(1.1, Math.max(-.1, y))
    draw()
  }
  function place() {
    dots.innerHTML = points.map((p, i) => `<circle r="9" tabindex="0" role="slider" aria-label="observation ${i+1}"/>`).join('')
    points.forEach((p, i) => {
      const dot = dots.children[i], where = e => new DOMPoint(e.clientX, e.clientY).matrixTransform(svg.getScreenCTM().inverse())
      dot.onpointerdown = e => { dot.setPointerCapture(e.pointerId); e.preventDefault() }
      dot.onpointermove = e => { if (dot.hasPointerCapture(e.pointerId)) { const o = where(e); move(p, (o.x-left)/(W-left-10), (H-20-o.y)/(H-30)*1.4-.2) } }
      dot.onkeydown = e => {
        const d = {ArrowLeft: [-.02, 0], ArrowRight: [.02, 0], ArrowUp: [0, .02], ArrowDown: [0, -.02]}[e.key]
        if (d) { e.preventDefault(); move(p, p.x+d[0], p.y+d[1]) }
      }
    })
    draw()
  }
  $('.train').onclick = () => { const x = +root.dataset.next; points.push({x, y: truth(x)}); place() }
  $('.again').onclick = () => { points = begin(); place() }
  $('.show').onchange = draw
  place()
}
document.querySelectorAll('.gp-demo').forEach(start)
