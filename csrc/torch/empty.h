// Allocates outputs and workspaces.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>

#include "torch/checks.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace suffuse {

// From this size on, glibc's malloc maps every block anew: its pages are zeroed, into the cache,
// when first written to.
constexpr int64_t kFreshBytes = 32 << 20;

// From this size on, malloc may give a block's memory back to the system when it is freed, and get
// it again page by page for the next result: a step with two results of 4.5 MB then took 6 ms
// instead of 0.7 ms.
constexpr int64_t kHugePageBytes = 4 << 20;

// Asks for 2 MiB pages under a block, where the system leaves the choice to the program: that takes
// 2 to 3 times less to fill anew. Every byte of it gets written, so no memory is wasted.
inline void ask_for_huge_pages(const Tensor& t, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes < kHugePageBytes || !t.is_cpu()) return;
  constexpr uintptr_t kPage = 4096;
  const uintptr_t start = reinterpret_cast<uintptr_t>(t.const_data_ptr());
  const uintptr_t first = (start + kPage - 1) / kPage * kPage;
  const uintptr_t last = (start + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // a hint: may fail
#endif
}

// An uninitialised contiguous tensor on like's device. Goes to the C shim itself: stable::new_empty
// calls the dispatcher by name, which costs 0.6 us more, a tenth of a whole small call.
inline Tensor empty(const Tensor& like, Sizes sizes, torch::headeronly::ScalarType type) {
  constexpr size_t kMaxDims = 64;
  if (sizes.size() > kMaxDims) fail("empty", "sizes", "at most 64 dimensions", to_string(sizes));
  int64_t strides[kMaxDims];
  int64_t next = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = next;
    next *= sizes[i] > 1 ? sizes[i] : 1;
  }
  int32_t device_type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.data(), strides,
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)), device_type,
      like.get_device_index(), &handle));
  const Tensor result(handle);
  ask_for_huge_pages(result, result.numel() * result.element_size());
  return result;
}

}  // namespace suffuse
