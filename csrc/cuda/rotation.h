// How the columns of a head are dealt to threads where pairs of them are rotated: plain functions
// for launchers and kernels.
//
// A thread has a slot: two groups of W columns. First come the slots of the columns that are
// rotated, whole pairs in each, then those of the rest. The first groups of neighbouring slots lie
// side by side, and so do the second.
#pragma once

#include "common/macros.h"

namespace suffuse {

SUFFUSE_HD constexpr int groups_of(int columns, int group) { return (columns + group - 1) / group; }

// Slots of the columns that are rotated, an even number of them.
SUFFUSE_HD constexpr int rotated_slots(int rotated, int group) {
  return groups_of(rotated / 2, group);
}
// All slots of a head.
SUFFUSE_HD constexpr int column_slots(int columns, int rotated, int group) {
  return rotated_slots(rotated, group) + groups_of((columns - rotated + 1) / 2, group);
}

}  // namespace suffuse
