// SqlDatabase on an Engine: writes in the engine's groups, reads on its reading connections.
#pragma once

#include <memory>

#include "backends/sqlite/engine.h"
#include "capabilities/sql_database.h"

namespace prism::sqlite {

// Makes Prism's own tables where they are missing. The engine is shared with the other capabilities on the same file;
// whoever opened it closes it, after the database.
//
// An interactive transaction holds up all other writers of the file, in this process and in others, until it ends.
Task<Result<std::shared_ptr<SqlDatabase>>> open_sql_database(Context context, std::shared_ptr<Engine> engine);

}  // namespace prism::sqlite
