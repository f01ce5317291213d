// What is seen of namespaces only when their options are read: what they may not share, and what is allowed in a file
// and surprising in it.
#pragma once

#include <vector>

#include "config/diagnostics.h"
#include "namespaces/model.h"
#include "patterns/components.h"

namespace prism {

// `sound` says of each namespace of the file whether its options are right; the others are left out. Reasons:
// OBJECT_PREFIX_SHARED, TABLE_SHARED, TOPIC_SHARED (a warning); patterns add theirs.
void review(const FileSpec& file, const std::vector<bool>& sound, const Components& components,
            config::Diagnostics& diagnostics);

}  // namespace prism
