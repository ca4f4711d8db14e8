// In which order the forward takes the groups of keys.
#pragma once

#include "ops/attention/cpu/half/softmax-inl.h"

namespace suffuse {
namespace SUFFUSE_ISA {
namespace attention {
namespace {

// The jobs of all panels with the groups [begin, end) of keys, one after another. With ALiBi those
// at the panel's own position come first, to set the reference of the softmax.
class Jobs {
 public:
  Jobs(const Work& w, int64_t begin, int64_t end) : w_(w), begin_(begin), end_(end) {}

  // The next one, or one without a panel.
  Job next() {
    for (; panel_ < w_.count; ++panel_, done_ = 0) {
      Panel& p = w_.panels[panel_];
      const Groups seen = seen_groups(w_.seen, p.first);
      const int64_t begin = larger(begin_, seen.begin), end = smaller(end_, seen.end);
      const int64_t first = begin / kGroups, blocks = tiles_of(end, kGroups) - first;
      if (begin >= end || done_ >= blocks) continue;
      const int64_t own = own_block(p, first, blocks);
      const int64_t block = first + (done_ <= own ? own - done_ : done_);
      ++done_;
      Job job;
      job.panel = &p;
      job.begin = larger(begin, block * kGroups);
      job.end = smaller(end, (block + 1) * kGroups);
      return job;
    }
    return {};
  }

 private:
  SUFFUSE_INLINE int64_t own_block(const Panel& p, int64_t first, int64_t blocks) const {
    if (w_.p->scores.alibi == nullptr) return 0;
    const int64_t block = (p.first + kPanel / 2 + w_.seen.shift) / (kGroup * kGroups) - first;
    return larger<int64_t>(0, smaller(block, blocks - 1));
  }

  const Work& w_;
  int64_t begin_, end_, panel_ = 0, done_ = 0;
};

}  // namespace
}  // namespace attention
}  // namespace SUFFUSE_ISA
}  // namespace suffuse
