/* Draws every figure of the page and keeps it in the colours of the page. */
(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var narrow = window.matchMedia("(max-width: 640px)");
  var touch = window.matchMedia("(pointer: coarse)");
  var plots = [];

  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function axisNames(layout) {
    return Object.keys(layout).filter(function (key) { return /^[xy]axis\d*$/.test(key); });
  }

  function colors(layout) {
    var changes = {
      "font.color": color("--soft"),
      "hoverlabel.bgcolor": color("--card"),
      "hoverlabel.bordercolor": color("--line"),
      "hoverlabel.font.color": color("--ink"),
      "modebar.color": color("--faint"),
      "modebar.activecolor": color("--ink"),
      "modebar.bgcolor": "rgba(0,0,0,0)"
    };
    axisNames(layout).forEach(function (name) {
      changes[name + ".gridcolor"] = color("--grid");
      changes[name + ".linecolor"] = color("--line");
      changes[name + ".tickcolor"] = color("--line");
      changes[name + ".zerolinecolor"] = color("--line");
    });
    return changes;
  }

  function shape(plot) {
    var changes = { height: plot.height, dragmode: touch.matches ? false : "zoom" };
    var small = narrow.matches;
    changes["font.size"] = small ? 12 : 13;
    changes["margin.l"] = small ? 8 : plot.margin.l;
    changes["margin.r"] = small ? 8 : plot.margin.r;
    plot.axes.forEach(function (name) {
      if (name[0] !== "x") { return; }
      changes[name + ".nticks"] = small ? 5 : plot.nticks[name] || 0;
      if (plot.dticks[name]) { changes[name + ".dtick"] = small ? 1 : plot.dticks[name]; }
    });
    var panels = plot.panels.length, high = panels - 0.36;
    plot.panels.forEach(function (panel, i) {  /* side by side; on a phone one below the other */
      changes[panel.x + ".domain"] = small ? [0, 1] : panel.domain;
      changes[panel.y + ".domain"] = small ? [Math.max(0, 1 - (i + 0.64) / high), 1 - i / high] : [0, 1];
      changes[panel.y + ".showticklabels"] = small ? true : panel.labels;
    });
    if (panels && small) { changes.height = 20 + 240 * panels; }
    if (plot.below && small) {
      changes.height = plot.height + 24 * (Math.ceil(plot.many / 2) - Math.ceil(plot.many / 6));
    }
    return changes;
  }

  function apply(layout, changes) {
    Object.keys(changes).forEach(function (path) {
      var keys = path.split("."), at = layout;
      keys.slice(0, -1).forEach(function (key) { at = at[key] = at[key] || {}; });
      at[keys[keys.length - 1]] = changes[path];
    });
  }

  function all(layout, plot) {
    return Object.assign(colors(layout), shape(plot));
  }

  function draw(script) {
    var box = document.getElementById(script.dataset.plot);
    var figure = JSON.parse(script.textContent);
    var layout = figure.layout;
    var plot = {
      box: box,
      height: layout.height || 400,
      margin: Object.assign({ l: 60, r: 20 }, layout.margin),
      axes: axisNames(layout),
      nticks: {},
      dticks: {},
      panels: [],
      below: layout.showlegend !== false && (layout.legend || {}).y < 0,
      many: figure.data.filter(function (t) { return t.showlegend !== false; }).length
    };
    plot.axes.forEach(function (name) {
      plot.nticks[name] = layout[name].nticks;
      if (layout[name].type === "log") { plot.dticks[name] = layout[name].dtick; }
      var domain = layout[name].domain;
      if (name[0] === "x" && domain && domain[1] - domain[0] < 0.99) {
        var y = "yaxis" + (layout[name].anchor || "y").slice(1);
        plot.panels.push({ x: name, y: y, domain: domain, labels: layout[y].showticklabels !== false });
      }
    });
    layout.autosize = true;
    delete layout.width;
    apply(layout, all(layout, plot));
    box.style.height = layout.height + "px";
    return Plotly.newPlot(box, figure.data, layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: touch.matches ? false : "hover",
      showSendToCloud: false,
      plotlyServerURL: "",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
      toImageButtonOptions: { format: "png", scale: 2, filename: script.dataset.plot }
    }).then(function () {
      box.dataset.drawn = "yes";
      plots.push(plot);
    });
  }

  function again() {
    plots.forEach(function (plot) {
      var changes = all(plot.box.layout, plot);
      plot.box.style.height = changes.height + "px";
      Plotly.relayout(plot.box, changes);
    });
  }

  var waiting = Array.prototype.slice.call(document.querySelectorAll("script[data-plot]"));
  function next() {
    var script = waiting.shift();
    if (!script) { document.documentElement.dataset.ready = "yes"; return; }
    draw(script).then(function () { window.setTimeout(next, 0); });
  }
  next();
  dark.addEventListener("change", again);
  narrow.addEventListener("change", again);
  ["beforeprint", "afterprint"].forEach(function (moment) {
    window.addEventListener(moment, function () {
      document.documentElement.classList.toggle("paper", moment === "beforeprint");
      if (dark.matches) { again(); }
    });
  });
})();
