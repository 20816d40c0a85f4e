/* The table of trials: only the rows in view exist, so 10,000 scroll as well as 10. Copy buttons. */
(function () {
  "use strict";
  Array.prototype.forEach.call(document.querySelectorAll("[data-copy]"), function (button) {
    button.addEventListener("click", function () {
      var place = document.getElementById(button.dataset.copy);
      function done(ok) {
        button.textContent = ok ? "copied" : "press Ctrl+C";
        window.setTimeout(function () { button.textContent = "copy"; }, 1600);
      }
      function select() {
        var range = document.createRange();
        range.selectNodeContents(place);
        var selection = window.getSelection();
        selection.removeAllRanges();
        selection.addRange(range);
        var ok = false;
        try { ok = document.execCommand("copy"); } catch (e) { ok = false; }
        done(ok);
      }
      if (navigator.clipboard && window.isSecureContext) {
        navigator.clipboard.writeText(place.textContent).then(function () { done(true); }, select);
      } else { select(); }
    });
  });

  var source = document.getElementById("rows");
  var grid = document.getElementById("grid");
  if (!source || !grid) { return; }
  var data = JSON.parse(source.textContent);
  var cols = data.columns;
  var count = cols.number.length;
  var HEIGHT = 36;

  function digits(v, n) {
    if (v === null || v === undefined) { return "–"; }
    if (v < 0) { return "−" + digits(-v, n); }
    if (v !== 0 && (v < 1e-4 || v >= 1e6)) { return v.toExponential(n - 2); }
    return String(Number(v.toPrecision(n)));
  }
  var share = data.metric === "accuracy";
  var columns = [
    { key: "number", label: "#", number: true },
    { key: "family", label: "family" },
    { key: "loss", label: "validation loss", number: true,
      show: function (i) {
        var v = cols.loss[i];
        return (v === null ? "–" : v.toPrecision(4).replace(/^-/, "−")) + (cols.status[i] === 1 ? " *" : "");
      } },
    { key: "status", label: "ended" },
    { key: "lr", label: "peak lr", number: true, show: function (i) { return digits(cols.lr[i], 3); } },
    { key: "warmup", label: "warmup", number: true },
    { key: "params", label: "parameters", wide: true },
    { key: "epochs", label: "epochs", number: true },
    { key: "metric", label: data.metric, number: true,
      show: function (i) {
        var v = cols.metric[i];
        return v === null ? "–" : share ? (100 * v).toFixed(1) + "%" : digits(v, 4);
      } },
    { key: "seconds", label: "wall seconds", number: true,
      show: function (i) { return digits(cols.seconds[i], 3); } }
  ].filter(function (column) { return column.label !== null; });  /* a study without a metric */

  function textOf(key, i) {
    if (key === "family") { return data.families[cols.family[i]] || ""; }
    if (key === "status") { return data.statuses[cols.status[i]]; }
    return cols[key][i];
  }

  var order = [];
  var sort = { key: "loss", up: true };

  var table = document.createElement("table");
  table.className = "trials";
  var head = table.createTHead().insertRow();
  columns.forEach(function (column) {
    var cell = document.createElement("th");
    cell.scope = "col";
    if (column.number) { cell.className = "num"; }
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = column.label;
    button.dataset.sort = column.key;
    button.addEventListener("click", function () {
      sort = { key: column.key, up: sort.key === column.key ? !sort.up : true };
      arrange();
    });
    cell.appendChild(button);
    head.appendChild(cell);
    column.cell = cell;
  });
  var body = table.createTBody();
  grid.appendChild(table);

  function rank(i) {
    /* pruned losses are of another epoch: they come after the complete ones, diverged last */
    return cols.status[i];
  }

  function arrange() {
    var wanted = (document.getElementById("filter").value || "").toLowerCase().split(/[\s,]+/)
      .filter(Boolean);
    order = [];
    for (var i = 0; i < count; i += 1) {
      if (wanted.length) {
        var line = ("#" + cols.number[i] + " " + textOf("family", i) + " " + textOf("status", i) +
          " " + cols.params[i] + " " + cols.note[i]).toLowerCase();
        if (!wanted.every(function (w) { return line.indexOf(w) >= 0; })) { continue; }
      }
      order.push(i);
    }
    var key = sort.key, sign = sort.up ? 1 : -1;
    order.sort(function (a, b) {
      if (key === "loss" && rank(a) !== rank(b)) { return rank(a) - rank(b); }
      var x = textOf(key, a), y = textOf(key, b);
      if (x === y) { return a - b; }
      if (x === null || x === undefined) { return 1; }
      if (y === null || y === undefined) { return -1; }
      return (x < y ? -1 : 1) * sign;
    });
    columns.forEach(function (column) {
      column.cell.setAttribute("aria-sort",
        column.key !== key ? "none" : sort.up ? "ascending" : "descending");
    });
    document.getElementById("shown").textContent =
      (order.length === count ? "" : order.length.toLocaleString("en") + " of ") +
      count.toLocaleString("en") + (count === 1 ? " trial" : " trials");
    first = -1;
    fill();
  }

  var first = -1;
  function spacer(height) {
    var row = document.createElement("tr");
    var cell = document.createElement("td");
    cell.colSpan = columns.length;
    cell.style.cssText = "height:" + height + "px;padding:0;border:0";
    row.setAttribute("aria-hidden", "true");
    row.appendChild(cell);
    return row;
  }

  function rowOf(i) {
    var row = document.createElement("tr");
    row.className = "is-" + data.statuses[cols.status[i]];
    columns.forEach(function (column) {
      var cell = document.createElement("td");
      if (column.number) { cell.className = "num"; }
      if (column.wide) { cell.className = "long"; }
      if (column.key === "family" && cols.family[i] >= 0) {
        cell.innerHTML = data.marks[cols.family[i]];
      }
      var value = column.show ? column.show(i) : textOf(column.key, i);
      cell.appendChild(document.createTextNode(value === null ? "–" : String(value)));
      if (column.key === "family" && cols.note[i]) {
        var note = document.createElement("small");
        note.textContent = "baseline";
        cell.appendChild(note);
      }
      if (column.wide) { cell.title = cols.params[i]; }
      row.appendChild(cell);
    });
    return row;
  }

  function fill(every) {
    var visible = every ? order.length : Math.ceil(grid.clientHeight / HEIGHT) + 16;
    var from = Math.max(0, Math.min(Math.floor(grid.scrollTop / HEIGHT) - 8, order.length - visible));
    from -= from % 4;
    if (from === first) { return; }
    first = from;
    var to = Math.min(order.length, from + visible + 4);
    var rows = document.createDocumentFragment();
    rows.appendChild(spacer(from * HEIGHT));
    for (var k = from; k < to; k += 1) { rows.appendChild(rowOf(order[k])); }
    rows.appendChild(spacer((order.length - to) * HEIGHT));
    body.replaceChildren(rows);
  }

  var asked = false;
  grid.addEventListener("scroll", function () {
    if (asked) { return; }
    asked = true;
    window.requestAnimationFrame(function () { asked = false; fill(); });
  }, { passive: true });
  window.addEventListener("resize", function () { first = -1; fill(); });
  window.addEventListener("beforeprint", function () { first = -1; fill(true); });
  window.addEventListener("afterprint", function () { first = -1; fill(); });
  document.getElementById("filter").addEventListener("input", function () {
    grid.scrollTop = 0;
    arrange();
  });
  arrange();
})();
