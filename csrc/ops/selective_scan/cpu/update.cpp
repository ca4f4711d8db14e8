// One step of the selective scan: states on the lanes, as they lie in memory, and the sums over
// them of as many channels as there are lanes at once.
#include "common/dtype.h"
#include "ops/selective_scan/cpu/kernel.h"
#include "ops/selective_scan/cpu/tile-inl.h"
#include "simd/flush_subnormals.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace selective_scan {

// A block's numbers of one operand, one a channel; 0 where there is none.
template <class V, class S>
SUFFUSE_INLINE V gather(const void* data, int64_t at, int64_t head, int64_t place, int64_t places,
                        int64_t first, int count) {
  S values[V::N] = {};
  for (int i = 0; data && i < count; i++) {
    const int64_t channel = first + i;
    values[i] =
        static_cast<const S*>(data)[at + channel / places * head + channel % places * place];
  }
  return load<V>(values);
}

// Moves the states of one channel on by a step; the lanes' sums of C h.
template <class V, class S, class T, class N>
SUFFUSE_INLINE V step_channel(const StateUpdateParams& p, T* state, const N* a, const S* b,
                              const S* c, N step, N x) {
  const V exponent(step * static_cast<N>(kLog2e)), scale(x);
  V sum = zero<V>();
  for (int64_t n = 0; n < p.states; n += V::N) {
    const int count = static_cast<int>(smaller(V::N, p.states - n));
    const V rate = p.a_state ? load<V>(a + n, count) : V(*a);
    const V h =
        muladd(exp2(exponent * rate), load<V>(state + n, count), scale * load<V>(b + n, count));
    store(state + n, h, count);
    sum = muladd(h, load<V>(c + n, count), sum);
  }
  return sum;
}

template <class V, class S, class T, class N>
void step_block(const StateUpdateParams& p, int64_t batch, int64_t first, int count) {
  S* const out = static_cast<S*>(p.out) + batch * p.heads * p.places + first;
  const int64_t slot = p.indices ? p.indices[batch] : batch;
  if (slot < 0) {
    store(out, zero<V>(), count);
    return;
  }
  const auto row = [&](const StepRows& r) {
    return gather<V, S>(r.data, batch * r.batch, r.head, r.place, p.places, first, count);
  };
  const auto channels = [&](const StepChannels& c) {
    return gather<V, N>(c.data, 0, c.head, c.place, p.places, first, count);
  };
  const V x = row(p.x), biased = row(p.dt) + channels(p.bias);
  const V step = p.softplus ? softplus(biased) : biased;
  alignas(64) N steps[V::N], scaled[V::N];
  store(steps, step);
  store(scaled, step * x);
  const int64_t of_group = p.heads * p.places / p.groups;
  V sums[V::N];
  for (int i = 0; i < V::N; i++) {
    sums[i] = zero<V>();
    if (i >= count) continue;
    const int64_t channel = first + i, head = channel / p.places, place = channel % p.places;
    const int64_t group = channel / of_group;
    sums[i] =
        step_channel<V>(p,
                        static_cast<T*>(p.state) + slot * p.state_slot + head * p.state_head +
                            place * p.state_place,
                        static_cast<const N*>(p.a.data) + head * p.a.head + place * p.a.place,
                        static_cast<const S*>(p.b.data) + batch * p.b.batch + group * p.b.group,
                        static_cast<const S*>(p.c.data) + batch * p.c.batch + group * p.c.group,
                        steps[i], scaled[i]);
  }
  transpose(sums);
  V y = channels(p.skip) * x;
  for (int i = 0; i < V::N; i++) y += sums[i];
  if (p.z.data) y *= silu(row(p.z));
  store(out, y, count);
}

}  // namespace selective_scan

void selective_state_update_range(const StateUpdateParams& p, int64_t begin, int64_t end) {
  const FlushSubnormals flush;
  const int64_t channels = p.heads * p.places, blocks = (channels + kScanLanes - 1) / kScanLanes;
  visit_dtype(p.dtype, [&](auto tag) {
    visit_dtype(p.state_dtype, [&](auto state_tag) {
      using S = typename decltype(tag)::type;
      using T = typename decltype(state_tag)::type;
      using V = typename selective_scan::LanesOf<S>::type;
      using N = typename selective_scan::LanesOf<S>::number;
      if constexpr ((sizeof(S) == 8) == (sizeof(T) == 8)) {
        for (int64_t unit = begin; unit < end; unit++) {
          const int64_t block = unit % blocks * kScanLanes;
          const int64_t last = selective_scan::smaller(block + kScanLanes, channels);
          for (int64_t first = block; first < last; first += V::N) {
            selective_scan::step_block<V, S, T, N>(
                p, unit / blocks, first,
                static_cast<int>(selective_scan::smaller(V::N, last - first)));
          }
        }
      }
    });
  });
}

}  // namespace SUFFUSE_ISA
}  // namespace suffuse
