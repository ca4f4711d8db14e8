// Panels of steps, of which vector j holds step j of every lane's run, and who works on which.
#pragma once

#include "ops/selective_scan/cpu/panels.h"
#include "ops/selective_scan/cpu/tile-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

constexpr int kPanelStates = 4;  // states scanned together

template <class V>
constexpr int kRun = static_cast<int>(kScanPanel) / V::N;  // steps of a lane

// Part of the channels of a group, part of the states, all of time.
struct PanelUnit {
  int64_t batch, group, channels_part, states_part;
  int64_t first_channel, last_channel;
  int first_state, last_state;

  SUFFUSE_INLINE int states() const { return last_state - first_state; }
};
inline PanelUnit panel_unit(const SelectiveScanParams& p, int64_t unit) {
  const PanelParts parts = scan_panel_parts(p);
  PanelUnit at;
  at.states_part = unit % parts.states;
  at.channels_part = unit / parts.states % parts.channels;
  const int64_t pair = unit / parts.states / parts.channels, size = p.channels / p.groups;
  at.batch = pair / p.groups;
  at.group = pair % p.groups;
  const int64_t first = at.group * size;
  at.first_channel = first + at.channels_part * size / parts.channels;
  at.last_channel = first + (at.channels_part + 1) * size / parts.channels;
  const int64_t fours = (p.states + kPanelStates - 1) / kPanelStates;
  const auto begin = [&](int64_t part) {
    return static_cast<int>(smaller(part * fours / parts.states * kPanelStates, p.states));
  };
  at.first_state = begin(at.states_part);
  at.last_state = begin(at.states_part + 1);
  return at;
}

// Steps [begin, begin + count) of time.
struct Panel {
  int64_t index, begin;
  int count;
  bool reverse;

  // Where the i-th step of a run lies in it, and the i-th of the lanes.
  template <class V>
  SUFFUSE_INLINE int step(int i) const {
    return reverse ? kRun<V> - 1 - i : i;
  }
  template <class V>
  SUFFUSE_INLINE int lane(int i) const {
    return reverse ? V::N - 1 - i : i;
  }
};
inline Panel panel_at(const SelectiveScanParams& p, int64_t index) {
  const int64_t begin = index * kScanPanel;
  return {index, begin, static_cast<int>(smaller(kScanPanel, p.length - begin)), p.reverse};
}
// The i-th panel of the scan.
inline Panel panel_of_scan(const SelectiveScanParams& p, int64_t i) {
  return panel_at(p, p.reverse ? scan_panels(p) - 1 - i : i);
}

// A row of adjacent steps as a panel; steps behind the last are 0.
template <class V, class S, class N>
SUFFUSE_INLINE void load_panel(N* to, const S* from, int count) {
  for (int j = 0; j < kRun<V>; j += V::N) {
    V row[V::N];
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) {
      const int step = i * kRun<V> + j, left = count - step;
      row[i] = left >= V::N ? load<V>(from + step)
               : left > 0   ? load<V>(from + step, left)
                            : zero<V>();
    }
    transpose(row);
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) store(to + (j + i) * V::N, row[i]);
  }
}
template <class V, class S, class N>
SUFFUSE_INLINE void store_panel(S* to, const N* from, int count) {
  for (int j = 0; j < kRun<V>; j += V::N) {
    V row[V::N];
    rows_of_tile(row, from, j);
#pragma GCC unroll 16
    for (int i = 0; i < V::N; i++) {
      const int step = i * kRun<V> + j, left = count - step;
      if (left >= V::N) {
        store(to + step, row[i]);
      } else if (left > 0) {
        store(to + step, row[i], left);
      }
    }
  }
}

// B or C of some states of a panel, where they vary: [state, kScanPanel].
template <class V, class S, class N>
void load_projection(N* to, const ScanProjection& from, const PanelUnit& at, const Panel& panel) {
  const S* base = static_cast<const S*>(from.data) + at.batch * from.batch + at.group * from.group +
                  panel.begin * from.time;
  if (from.time == 1) {
    for (int n = at.first_state; n < at.last_state; n++, to += kScanPanel) {
      load_panel<V>(to, base + n * from.state, panel.count);
    }
    return;
  }
  for (int n = at.first_state; n < at.last_state; n += V::N, to += V::N * kScanPanel) {
    const int states = static_cast<int>(smaller(V::N, at.last_state - n));
    for (int j = 0; j < kRun<V>; j++) {
      V row[V::N];
      for (int i = 0; i < V::N; i++) {
        const int step = i * kRun<V> + j;
        row[i] = step < panel.count ? load<V>(base + step * from.time + n, states) : zero<V>();
      }
      transpose(row);
      for (int k = 0; k < states; k++) store(to + k * kScanPanel + j * V::N, row[k]);
    }
  }
}

// What a unit works with. Matrices [channels][states] of numbers; rows of kScanPanel.
template <class N>
struct PanelWorkspace {
  N *a, *state;  // A log2 e; what the panel begins with
  N *b, *c;      // [states][kScanPanel], or constant [states][V::N]
  int64_t b_state, b_step, c_state, c_step;
  N *delta, *x, *u, *y, *kept;     // kept: 0 where the state restarts
  N *h, *product, *decay, *begin;  // of kPanelStates states; begin: what each run begins with
};

template <class N>
int64_t panel_numbers(const SelectiveScanParams& p) {
  const PanelParts parts = scan_panel_parts(p);
  const int64_t states = (p.states + parts.states - 1) / parts.states + kPanelStates;
  const int64_t channels = p.channels / p.groups / parts.channels + 1;
  return 2 * (channels * states + kScanLanes) + (2 * states + 5 + 4 * kPanelStates) * kScanPanel;
}

// Cuts whole cache lines.
template <class N>
class PanelMemory {
 public:
  explicit PanelMemory(void* memory) : next_(static_cast<N*>(memory)) {}
  N* cut(int64_t numbers) {
    N* const at = next_;
    next_ += (numbers + kScanLanes - 1) / kScanLanes * kScanLanes;
    return at;
  }

 private:
  N* next_;
};

template <class V, class N>
PanelWorkspace<N> cut_panels(const SelectiveScanParams& p, const PanelUnit& at,
                             PanelMemory<N>& memory) {
  PanelWorkspace<N> w;
  const int64_t channels = at.last_channel - at.first_channel, states = at.states();
  w.a = memory.cut(channels * states);
  w.state = memory.cut(channels * states);
  N** const matrices[] = {&w.b, &w.c};
  for (N** m : matrices) *m = memory.cut(states * kScanPanel);
  N** const rows[] = {&w.delta, &w.x, &w.u, &w.y, &w.kept};
  for (N** r : rows) *r = memory.cut(kScanPanel);
  N** const of_states[] = {&w.h, &w.product, &w.decay, &w.begin};
  for (N** r : of_states) *r = memory.cut(kPanelStates * kScanPanel);
  w.b_state = p.b.varying ? kScanPanel : V::N;
  w.c_state = p.c.varying ? kScanPanel : V::N;
  w.b_step = p.b.varying ? V::N : 0;
  w.c_step = p.c.varying ? V::N : 0;
  for (int64_t i = 0; i < channels; i++) {
    const N* a = static_cast<const N*>(p.a) + (at.first_channel + i) * p.states + at.first_state;
    for (int64_t n = 0; n < states; n++) w.a[i * states + n] = static_cast<N>(kLog2e) * a[n];
  }
  return w;
}

// Whether decays need exp2: an A is unusual, or a step may be negative.
template <class N>
bool unusual_panels(const SelectiveScanParams& p, const PanelWorkspace<N>& w, const PanelUnit& at) {
  return !p.softplus || any_unusual(w.a, 0, (at.last_channel - at.first_channel) * at.states());
}

// A matrix [batch, channels, states] and the unit's part of it.
template <class N>
void load_panel_states(N* to, const SelectiveScanParams& p, const PanelUnit& at, const void* from) {
  for (int64_t d = at.first_channel; d < at.last_channel; d++) {
    const int64_t row = (at.batch * p.channels + d) * p.states;
    for (int n = at.first_state; n < at.last_state; n++) {
      *to++ = from ? static_cast<const N*>(from)[row + n] : N(0);
    }
  }
}
template <class N>
void store_panel_states(void* to, const SelectiveScanParams& p, const PanelUnit& at,
                        const N* from) {
  for (int64_t d = at.first_channel; d < at.last_channel; d++) {
    const int64_t row = (at.batch * p.channels + d) * p.states;
    for (int n = at.first_state; n < at.last_state; n++) static_cast<N*>(to)[row + n] = *from++;
  }
}

// The part's states of a channel before the scan's i-th panel.
template <class N>
SUFFUSE_INLINE N* panel_states(const SelectiveScanParams& p, const PanelUnit& at, int64_t channel,
                               int64_t i) {
  const int64_t row = (at.batch * p.channels + channel) * scan_panels(p) + i;
  return static_cast<N*>(p.chunk_states) + row * p.states + at.first_state;
}

// Constant B or C of a channel.
template <class V, class N>
void spread_constant(N* to, const ScanProjection& from, const SelectiveScanParams& p,
                     const PanelUnit& at, int64_t channel) {
  if (from.varying) return;
  const N* row = static_cast<const N*>(from.data) + channel * p.states + at.first_state;
  for (int n = 0; n < at.states(); n++) store(to + n * V::N, V(row[n]));
}

template <class V>
SUFFUSE_INLINE int place_in_panel(int step) {
  return step % kRun<V> * V::N + step / kRun<V>;
}

template <class V, class N>
void load_restarts(N* kept, const SelectiveScanParams& p, int64_t batch, const Panel& panel) {
  const int32_t* sequence = p.sequence + batch * p.length;
  for (int i = 0; i < kScanPanel; i++) {
    const int64_t t = panel.begin + i, before = p.reverse ? t + 1 : t - 1;
    const bool inside = i < panel.count && before >= 0 && before < p.length;
    kept[place_in_panel<V>(i)] = N(!inside || sequence[t] == sequence[before]);
  }
}

// Where a channel's row of the panel begins, in an operand and in a contiguous result.
template <class S>
SUFFUSE_INLINE const S* panel_row(const ScanRows& rows, int64_t batch, int64_t channel,
                                  const Panel& panel) {
  return static_cast<const S*>(rows.data) + batch * rows.batch + channel * rows.channel +
         panel.begin;
}

// Where a part of the states leaves row `row` of `rows` of a panel.
template <class N>
SUFFUSE_INLINE N* panel_part_row(const SelectiveScanParams& p, int64_t batch, int64_t channel,
                                 int64_t part, int64_t rows, int64_t row, const Panel& panel) {
  const int64_t parts = scan_panel_parts(p).states;
  const int64_t number = ((batch * p.channels + channel) * parts + part) * rows + row;
  return static_cast<N*>(p.workspace) + (number * scan_panels(p) + panel.index) * kScanPanel;
}
template <class N>
SUFFUSE_INLINE void leave_panel_row(const SelectiveScanParams& p, const PanelUnit& at,
                                    int64_t channel, int64_t rows, int64_t row, const Panel& panel,
                                    const N* from) {
  N* const to = panel_part_row<N>(p, at.batch, channel, at.states_part, rows, row, panel);
  __builtin_memcpy(to, from, kScanPanel * sizeof(N));
}
template <class V, class N>
SUFFUSE_INLINE void add_panel_parts(N* to, const SelectiveScanParams& p, int64_t batch,
                                    int64_t channel, int64_t rows, int64_t row,
                                    const Panel& panel) {
  for (int64_t part = 0; part < scan_panel_parts(p).states; part++) {
    const N* const from = panel_part_row<N>(p, batch, channel, part, rows, row, panel);
    for (int i = 0; i < kScanPanel; i += V::N) store(to + i, load<V>(to + i) + load<V>(from + i));
  }
}

}  // namespace selective_scan
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
