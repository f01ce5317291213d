// KeyValueStore on an Engine: one table of the file.
#pragma once

#include <memory>

#include "backends/sqlite/engine.h"
#include "capabilities/key_value_store.h"

namespace prism::sqlite {

// Makes its table where it is missing. The engine is shared; whoever opened it closes it. Every key of the file is in
// this one store: those who share it choose prefixes.
Task<Result<std::shared_ptr<KeyValueStore>>> open_key_value_store(Context context, std::shared_ptr<Engine> engine);

}  // namespace prism::sqlite
